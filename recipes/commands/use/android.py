"""`kzoo android`: an Android app around a run's model."""

import dataclasses

from kzoo.recipes.inputs import FILE, require_ended, tiles_given
from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class AndroidOptions(Options):
    """What `kzoo android` takes."""

    run: str = option("run folder")
    out: str | None = option("folder to write (default: RUN/android)", None)
    package: str | None = option(
        "package name of the app (default: com.example and the run's name)", None
    )
    max_results: int | None = option(
        "classes or boxes that the app shows (default: 3 classes, 20 boxes, all labels)", None
    )
    tiles: str | None = option(
        "ROWSxCOLUMNS or auto: a detector's app also uses tiles for photos, as in kzoo predict "
        "--tiles",
        None,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        tiles_given(self.tiles)


def run(options: AndroidOptions) -> str:
    require_ended(options.run, FILE)
    from kzoo.recipes.programs.android_folder import android

    folder = android(
        options.run, options.out, package=options.package, max_results=options.max_results,
        tiles=tiles_given(options.tiles),
    )  # fmt: skip
    files = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return "\n".join(
        [*files, f"Next: open {folder} in Android Studio ({folder / 'README.md'} has the steps)"]
    )


COMMAND = Command(
    "android",
    "write an Android app with a run's model, to open in Android Studio",
    AndroidOptions,
    run,
    "kzoo android runs/photos --package com.example.flowers",
)
