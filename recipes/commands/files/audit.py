"""`kzoo audit`: what is in a .tflite file, where it will run, and what will run slowly."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kzoo.recipes.inputs import require_file
from kzoo.recipes.options import Command, JsonOptions, option

TARGETS = ("cpu", "gpu", "npu", "web", "micro", "edgetpu", "all")


@dataclasses.dataclass(frozen=True)
class AuditOptions(JsonOptions):
    """What `kzoo audit` takes."""

    file: str = option(".tflite file, anyone's")
    targets: tuple[str, ...] = option(
        f"what a target refuses and what to do: {', '.join(TARGETS)}; may be given again", (),
        repeat=True, flag="target",
    )  # fmt: skip


def run(options: AuditOptions) -> Any:
    require_file(options.file)
    from kzoo.tflite import audit, targets

    if options.targets:
        verdicts = targets(options.file, options.targets)
        return in_short(verdicts) if options.json else "\n".join(map(str, verdicts))
    found = audit(options.file)
    if not options.json:
        return found
    fields = {name: value for name, value in vars(found).items() if name != "targets"}
    return {"verdict": found.verdict, **fields, "targets": in_short(found.targets)}


def in_short(verdicts: Sequence[Any]) -> dict[str, Any]:
    """Return what each target's list says, without the list."""
    return {
        verdict.target.key: {
            "answer": verdict.answer,
            "sentence": verdict.sentence,
            "refused": [str(finding) for finding in verdict.refused],
            "advice": verdict.advice,
        }
        for verdict in verdicts
    }


COMMAND = Command(
    "audit",
    "what is in a .tflite file, where it will run, and what will run slowly",
    AuditOptions,
    run,
    "kzoo audit model.tflite --target gpu",
)
