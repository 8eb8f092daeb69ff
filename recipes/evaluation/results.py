"""What a run reached, as it is kept in results.json and told at the run's end."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from kzoo.files import write_json
from kzoo.recipes.evaluation.evaluate import Evaluation
from kzoo.recipes.task import Run

R = TypeVar("R", bound="RunResults")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults:
    """What a run reached on its validation and test images, by "float" and "int8" model.

    A task adds its main figures as fields.
    """

    folder: Path
    val: Mapping[str, Any]
    test: Mapping[str, Any] | None = None  # None where the data have no test split

    @classmethod
    def of(cls, run: Run, evaluation: Evaluation) -> Self:
        """Return what a run reached."""
        return cls(**figures(run, evaluation), **cls.main_figures(evaluation))

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        """Return the fields that the task adds."""
        return {}

    def summary(self) -> str:
        """Return the figures in a sentence."""
        return f"validation: {self.val}"

    def test_summary(self) -> str:
        """Return the figures on the test images in a sentence; empty without any."""
        return f"test: {self.test}" if self.test else ""

    def __str__(self) -> str:
        float_bytes, int8_bytes = (
            (self.folder / name).stat().st_size for name in ("model.keras", "model.tflite")
        )
        lines = [
            self.summary(),
            *filter(None, [self.test_summary()]),
            f"Model:  {self.folder / 'model.tflite'} ({int8_bytes:,} bytes; model.keras, in float, "
            f"has {float_bytes:,})",
            f"Report: {(self.folder / 'report.html').absolute().as_uri()}",
            f"Next:   kzoo predict {self.folder} IMAGE...    what it says of images",
            f"        kzoo android {self.folder}             what an Android app needs of it",
        ]
        return "\n".join(lines)


def write_results(run: Run, evaluation: Evaluation) -> Any:
    """Write results.json and return the task's RunResults."""
    results: RunResults = run.task.report.Results.of(run, evaluation)
    kept = dataclasses.asdict(results) | {"folder": run.folder.name}
    write_json(run.folder / "results.json", kept | dict(results.val))
    return results


def figures(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Return {"folder", "val", "test"}, the fields that all RunResults have."""
    found = {
        split.name: {
            kind: run.task.report.figures(score, run.dataset.labels)
            for kind, score in split.scores.items()
        }
        for split in evaluation.splits
    }
    return {"folder": run.folder, "val": found["val"], "test": found.get("test")}


def read_results(folder: Path, kind: type[R]) -> R:
    """Return the results of a finished run."""
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: kept[name] for name in names} | {"folder": folder})
