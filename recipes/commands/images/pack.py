"""`kzoo pack`: images into few large, checked files."""

import dataclasses
from pathlib import Path

from kzoo.recipes.configs.detect import BOX_FORMATS
from kzoo.recipes.inputs import existing
from kzoo.recipes.options import Command, Options, option

TASKS = ("classify", "detect", "multilabel", "segment")
SHARD_MB = 256.0


@dataclasses.dataclass(frozen=True)
class PackOptions(Options):
    """What `kzoo pack` takes."""

    folders: tuple[str, ...] = option(
        "DATA OUT: the data, as for the task's command, and the packed folder to write; or "
        "several packed folders and the folder to join them into; or one to verify"
    )
    task: str = option(f"{', '.join(TASKS)}", "classify", choices=TASKS)
    side: int | None = option("px to shrink the shorter side to (default: original size)", None)
    format: str | None = option(
        f"annotation format: {', '.join(BOX_FORMATS)} (default: detected)", None,
        choices=BOX_FORMATS,
    )  # fmt: skip
    void: str | int | None = option(
        "what masks ignore: a value, or class names separated by commas (default: 255)", None,
    )  # fmt: skip
    shard_mb: float = option("megabytes per file", SHARD_MB)
    val_fraction: float = option("share of images for validation if the data has no split", 0.2)
    seed: int = option("random seed of that split", 0)


def run(options: PackOptions) -> None:
    *data, out = map(Path, options.folders)
    for folder in data:
        existing(folder, "a folder with images, a CSV file, or a packed folder")
    from kzoo.recipes.data.packed import check, is_packed
    from kzoo.recipes.data.packing import join, pack

    if not data:
        found = check(out)
    elif len(data) > 1 or is_packed(data[0]):
        found = join(data, out)
    else:
        found = pack(
            data[0],
            out,
            task=options.task,
            side=options.side,
            shard_mb=options.shard_mb,
            val_fraction=options.val_fraction,
            seed=options.seed,
            format=options.format,
            void=options.void,
        )
    print(found)
    if found.damage:
        raise ValueError(f"{len(found.damage)} damaged files")


COMMAND = Command(
    "pack",
    "pack images into a few large files with checksums, join such files, or verify them",
    PackOptions,
    run,
    "kzoo pack PHOTOS packed --side 256",
)
