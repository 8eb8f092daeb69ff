"""The fields of a recipe's frozen Config as flags of its command."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def option(help: str, default: Any = dataclasses.MISSING) -> Any:
    """A field of a Config: what it means, and its default if it has one."""
    return dataclasses.field(default=default, metadata={"help": help})


def at_least(config: Any, least: Mapping[str, float]) -> None:
    """Raises ValueError for a field of `config` that is below its least value."""
    for name, value in least.items():
        if getattr(config, name) < value:
            raise ValueError(f"{name} must be at least {value}. Received: {getattr(config, name)}")


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag per field (`head_epochs`: --head-epochs); a field without default by position."""
    for field in dataclasses.fields(config):
        text = field.metadata["help"]
        if field.default is dataclasses.MISSING:
            parser.add_argument(field.name, help=text)
            continue
        kind: Any = {"type": plain_type(typing.get_type_hints(config)[field.name])}
        if kind["type"] is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        shown = "" if field.default is None else f" (default: {field.default})"
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, default=field.default, help=text + shown, **kind)


def plain_type(hint: Any) -> type:
    """`int` of `int` and of `int | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def from_flags(config: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of a Config's fields out of parsed flags."""
    return {field.name: getattr(arguments, field.name) for field in dataclasses.fields(config)}
