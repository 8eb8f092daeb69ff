"""Frozen dataclasses whose fields are the flags of a command."""

import argparse
import dataclasses
import difflib
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from kzoo.arguments import check_call, is_flag, is_number, is_whole

T = TypeVar("T")


def option(
    help: str, default: Any = dataclasses.MISSING, *, lasting: bool = True,
    choices: Callable[[], Collection[str]] | Collection[str] | None = None,
    positional: bool = False, repeat: bool = False, flag: str | None = None,
    former: str | None = None, before: Any = None, instead: str | None = None,
) -> Any:  # fmt: skip
    """Return a field of an options class. With a default it is keyword-only in Python.

    help: the text of --help.
    lasting: False if it does not affect the result: it is not saved in config.json, and may differ
        when a run is resumed, or between its processes.
    choices: the allowed values (see `check_choices`), or a function that returns them.
    positional: no flag but a positional argument, as for fields without default.
    repeat: the flag of a field with several values is repeated for each value.
    flag: the flag's name, if it is not the field's.
    former: an old name of the flag, which still works but is not in the help.
    before: the value, as in config.json, of runs that were begun before the option existed.
    instead: name of a class whose instances are allowed besides the choices.
    """
    about = {
        "help": help, "lasting": lasting, "choices": choices, "positional": positional,
        "repeat": repeat, "flag": flag, "former": former, "before": before,
        "instead": instead,
    }  # fmt: skip
    return dataclasses.field(
        default=default, metadata=about, kw_only=default is not dataclasses.MISSING
    )


def with_default(options: type, name: str, default: Any) -> Any:
    """Return the field of an options class with another default, for a subclass."""
    (field,) = (field for field in dataclasses.fields(options) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base class of the options of a command; fields are created by `option`."""

    def __post_init__(self) -> None:
        check_types(self)
        check_choices(self)


@dataclasses.dataclass(frozen=True)
class JsonOptions(Options):
    """Base class of the options of a command with --json."""

    json: bool = option("print the result as JSON", False, lasting=False)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `kzoo`: `run` is called with its options, and its result is printed.

    The module of a command imports nothing heavy outside of `run`: `kzoo --help` imports them all.
    """

    name: str
    about: str  # description in one line
    options: type[Options]
    run: Callable[[Any], Any]
    example: str = ""  # a command line


KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    bool: (is_flag, "True or False"),
    int: (is_whole, "a whole number"),
    float: (is_number, "a number"),
    str: (lambda value: isinstance(value, str | os.PathLike), "a text"),
}


def check_types(options: Any) -> None:
    """Raise ValueError for a field whose value, such as None or "no", is not of its type.

    Fields of several types are left to their own checks.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value, hint = getattr(options, field.name), hints[field.name]
        if value is field.default or field.metadata.get("choices") is not None:
            continue
        optional = isinstance(hint, types.UnionType) and types.NoneType in typing.get_args(hint)
        one_type = len([x for x in typing.get_args(hint) if x is not types.NoneType]) < 2
        if (value is None and optional) or (isinstance(hint, types.UnionType) and not one_type):
            continue
        kind, several = value_type(hint)
        holds, wanted = KINDS[kind]
        if several:
            fits = isinstance(value, tuple | list) and all(map(holds, value))
            wanted = f"a list or tuple, each of it {wanted}"
        else:
            fits = holds(value)
        if not fits:
            none = value is None and re.search(r"\bnone\b", field.metadata.get("help", ""))
            wanted += " ('none' for none)" if none else ""
            raise ValueError(f"{field.name} must be {wanted}. Received: {value!r}")


def check_choices(options: Any) -> None:
    """Raise ValueError for a field that is not one of its choices; it names the nearest one."""
    for field in dataclasses.fields(options):
        choices = field.metadata.get("choices")
        allowed = choices() if callable(choices) else choices
        value = getattr(options, field.name)
        if allowed is None or (value is None and field.default is None):
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if type(one).__name__ == field.metadata.get("instead"):
                continue
            if one not in allowed:
                raise ValueError(
                    f"{field.name} must be one of {', '.join(allowed)}. Received: {one!r}"
                    f"{did_you_mean(str(one), allowed)}"
                )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ". Did you mean 'x'?" for the nearest of the known words, "" if none is similar."""
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f". Did you mean {near[0]!r}?" if near else ""


def at_least(config: Any, least: Mapping[str, float]) -> None:
    """Raise ValueError for a field of `config` below its least value, infinite or nan."""
    for name, value in least.items():
        given = getattr(config, name)
        if not value <= given < math.inf:
            allowed = "finite" if given == math.inf else f"at least {value}"
            raise ValueError(f"{name} must be {allowed}. Received: {given}")


def below_one(config: Any, *names: str) -> None:
    """Raise ValueError for a field of `config` that is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be in [0, 1). Received: {getattr(config, name)}")


def configured(name: str, options: type[T], /, **values: Any) -> T:
    """Return `options(**values)`; raise TypeError with the nearest name for an unknown option."""
    check_call(name, inspect.signature(options), (), values)
    return options(**values)


def add_flags(parser: argparse.ArgumentParser, options: type) -> None:
    """Add an argument to `parser` for each field of an options class.

    `head_epochs` becomes --head-epochs. A field without a default is a positional argument; one of
    type `tuple[str, ...]` takes several values.
    """
    hints = typing.get_type_hints(options)
    fields = dataclasses.fields(options)
    for field in sorted(fields, key=lambda f: (bool(f.kw_only), not f.metadata["lasting"])):
        about, required = field.metadata, field.default is dataclasses.MISSING
        kind, several = value_type(hints[field.name])
        given: dict[str, Any] = {"type": kind}
        if kind is bool:
            on = "store_true" if field.default is False else argparse.BooleanOptionalAction
            given = {"action": on}
        elif about["repeat"]:
            given["action"] = "append"
        elif several:
            given["nargs"] = "+" if required or not about["positional"] else "*"
        if kind is not bool:
            given["metavar"] = (about["flag"] or field.name).upper().replace("-", "_")
        if required or about["positional"]:
            parser.add_argument(field.name, help=about["help"], **given)
            continue
        default: Any = field.default
        default = " ".join(default) if several else default
        shown = default not in (None, "", False)
        text = about["help"] + (f" (default: {default})" if shown else "")
        flag = f"--{(about['flag'] or field.name).replace('_', '-')}"
        parser.add_argument(flag, dest=field.name, default=None, help=text, **given)
        if about["former"]:
            parser.add_argument(
                f"--{about['former']}", dest=field.name, help=argparse.SUPPRESS, **given
            )


def value_type(hint: Any) -> tuple[type, bool]:
    """Return (type of a value, whether there are several), for example (int, False) for int | None.

    For a union of several types it is str, which the options class parses.
    """
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        hint = kinds[0] if len(kinds) == 1 else str
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def from_flags(options: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values of an options class's fields that were given as flags."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(options)}
    values = {name: value for name, value in given.items() if value is not None}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
