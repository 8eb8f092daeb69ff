"""Checks of arguments that raise ValueError: what came, and what is allowed."""

import difflib
import functools
import inspect
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)  # numpy's too


def is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_flag(value: Any) -> TypeGuard[bool]:
    return type(value).__name__ in ("bool", "bool_")  # numpy's too


def require(argument: str, value: Any, holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{argument} must be {wanted}. Received: {argument}={value!r}")


def one_of(argument: str, value: Any, allowed: tuple[Any, ...]) -> None:
    require(argument, value, value in allowed, f"one of {', '.join(map(repr, allowed))}")


def check_call(
    name: str, signature: inspect.Signature, given: Sequence[Any], options: Mapping[str, Any]
) -> None:
    """Raise TypeError, its cause first, where a function of that signature takes no such call."""
    takes = f"It takes {', '.join(signature.parameters)}."
    for key in options:
        if key not in signature.parameters:
            near = difflib.get_close_matches(key, signature.parameters, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}.{hint} {takes}")
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}. {takes}") from None


def renamed(**names: str) -> Callable[[F], F]:
    """Let a function's old argument names work, {old: new}, with a DeprecationWarning."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for old in options.keys() & names.keys():
                new = names[old]
                if new in options:
                    raise TypeError(f"{function.__name__}() got both {old} and {new}: the same.")
                warnings.warn(
                    f"{function.__name__}({old}=) is now called {new}=", DeprecationWarning, 2
                )
                options[new] = options.pop(old)
            return function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate
