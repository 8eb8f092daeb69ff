"""`kzoo android`: what an Android app needs of a run."""

import dataclasses

from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class AndroidOptions(Options):
    """What `kzoo android` takes."""

    run: str = option("run folder")
    out: str | None = option("folder to write (default: RUN/android)", None)


def run(options: AndroidOptions) -> str:
    from kzoo.recipes.commands.android_folder import android

    folder = android(options.run, options.out)
    return "\n".join(str(path) for path in sorted(folder.rglob("*")) if path.is_file())


COMMAND = Command(
    "android",
    "a folder with what an Android app needs of a run: model, Kotlin, Gradle lines, model card",
    AndroidOptions,
    run,
    "kzoo android runs/photos",
)
