"""The fields of a recipe's frozen Config as flags of its command."""

import argparse
import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from kzoo.recipes import distributed as distribute

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DAMAGED = ("refuse", "skip")


def option(help: str, default: Any = dataclasses.MISSING, *, lasting: bool = True) -> Any:
    """A field of a Config: what it means, and its default if it has one.

    What is not `lasting` changes nothing of a run but its course: it is not kept with the run, and
    may be another when the run is taken up again, or in another of its processes.
    """
    return dataclasses.field(default=default, metadata={"help": help, "lasting": lasting})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """What the Configs of all recipes share: how a run with their `batch_size` is carried out."""

    precision: str = option(f"{', '.join(PRECISIONS)}: what the net computes in", "float32")
    accumulate: int = option("steps that a batch is spread over, where memory is short", 1)
    ema: float = option("momentum of a mean of the weights, kept in their place; 0: none", 0.0)
    save_every: float = option(
        "minutes between states that are kept within an epoch; 0: at its end only", 10.0,
        lasting=False,
    )  # fmt: skip
    damaged: str = option(
        f"shards of a packed folder that are damaged: {' or '.join(DAMAGED)}", "refuse",
        lasting=False,
    )  # fmt: skip
    distribute: str | None = option(
        "auto (all devices; processes as SLURM or KERAS_DISTRIBUTION_* say), or HOST:PORT of all "
        "processes, with commas between. Needs JAX", None, lasting=False,
    )  # fmt: skip
    rank: int | None = option("which of the addresses is this process's", None, lasting=False)

    def __post_init__(self) -> None:
        at_least(self, {"accumulate": 1, "save_every": 0, "ema": 0, "seed": 0})
        below_one(self, "val_fraction")
        if self.ema >= 1:
            raise ValueError(
                f"ema must be in [0, 1), .998 for a mean of some 500 steps. Received: {self.ema}"
            )
        for name, allowed in (("precision", PRECISIONS), ("damaged", DAMAGED)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}"
                )
        batch = vars(self)["batch_size"]
        if batch % self.accumulate:
            raise ValueError(
                "batch_size must be a multiple of accumulate. Received: batch_size="
                f"{batch} and accumulate={self.accumulate}"
            )
        distribute.check(self.distribute, self.rank, self.step)

    @property
    def step(self) -> int:
        """Images that go through the net at once."""
        return vars(self)["batch_size"] // self.accumulate

    @property
    def of_stages(self) -> dict[str, Any]:
        """What of it the run's stages are told (`kzoo.recipes.training.stages.Stage`)."""
        return {name: getattr(self, name) for name in ("accumulate", "save_every")}

    def joined(self) -> contextlib.AbstractContextManager[None]:
        """The processes of the run, from its beginning to its end."""
        return distribute.joined(self.distribute, self.rank, batch=self.step)


def at_least(config: Any, least: Mapping[str, float]) -> None:
    """Raises ValueError for a field of `config` that is below its least value, or is no number."""
    for name, value in least.items():
        given = getattr(config, name)
        if not value <= given < math.inf:
            allowed = "finite" if given == math.inf else f"at least {value}"
            raise ValueError(f"{name} must be {allowed}. Received: {given}")


def below_one(config: Any, *names: str) -> None:
    """Raises ValueError for a field of `config` that is a share and not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be in [0, 1). Received: {getattr(config, name)}")


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag per field (`head_epochs`: --head-epochs); a field without default by position."""
    for field in sorted(dataclasses.fields(config), key=lambda field: bool(field.kw_only)):
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
