"""`kzoo demo`: the whole way on images that it draws itself."""

import dataclasses
from typing import Any

from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class DemoOptions(Options):
    """What `kzoo demo` takes."""

    out: str = option("folder to write", "runs/demo")


def run(options: DemoOptions) -> Any:
    from kzoo.recipes.programs.demo import demo

    return demo(options.out)


COMMAND = Command(
    "demo",
    "draw images, train on them and write a verified int8 file: about two minutes",
    DemoOptions,
    run,
    "kzoo demo --out runs/demo",
)
