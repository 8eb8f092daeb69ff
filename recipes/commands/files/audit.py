"""`kzoo audit`: what is in a .tflite file, where it will run, and what will run slowly."""

import dataclasses
from typing import Any

from kzoo.recipes.inputs import require_file
from kzoo.recipes.options import Command, JsonOptions, option

TARGETS = ("cpu", "gpu", "npu", "web", "micro", "edgetpu", "all")


@dataclasses.dataclass(frozen=True)
class AuditOptions(JsonOptions):
    """What `kzoo audit` takes."""

    file: str = option(".tflite file, from kzoo or any other tool")
    targets: tuple[str, ...] = option(
        f"list what a target refuses and what to do: {', '.join(TARGETS)}; may be repeated", (),
        repeat=True, flag="target",
    )  # fmt: skip


def run(options: AuditOptions) -> Any:
    require_file(options.file)
    # Not from kzoo.tflite, which imports all of Keras.
    from kzoo.tflite.inspect.audit import audit
    from kzoo.tflite.inspect.targets.verdicts import targets

    if not options.targets:
        return audit(options.file)
    verdicts = targets(options.file, options.targets)
    return verdicts if options.json else "\n".join(map(str, verdicts))


COMMAND = Command(
    "audit",
    "show what is in a .tflite file, where it will run, and what will be slow",
    AuditOptions,
    run,
    "kzoo audit model.tflite --target gpu",
)
