"""`RunResults`: the results of a run, in results.json and as a command prints them."""

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from kzoo.files import finite, write_json
from kzoo.recipes.evaluation.evaluate import Evaluation
from kzoo.recipes.evaluation.provenance import Provenance, versions
from kzoo.recipes.task import FLOAT, INT8, Run
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.int8 import WEIGHTS

R = TypeVar("R", bound="RunResults")
SummaryFigures = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults:
    """The results of a run on its validation and test images, for the "float" and "int8" model.

    A task's subclass has its main figures as further fields.
    """

    # (key, display name) of the figures in a summary.
    summary_figures: ClassVar[SummaryFigures] = ()
    folder: Path
    val: Mapping[str, Any]
    test: Mapping[str, Any] | None = None  # None if the data have no test split
    images: Mapping[str, int] = dataclasses.field(default_factory=dict)  # by "train", "val", "test"
    chosen: str = ""  # weights of the int8 model: "qat" or "ptq"; empty without a choice
    reason: str = ""  # of the choice

    @classmethod
    def of(cls, run: Run, evaluation: Evaluation, history: Sequence[Row] = ()) -> Self:
        """Return the results of a run from its evaluation and history."""
        chosen = {
            key: row[key] for row in history if "chosen" in row for key in ("chosen", "reason")
        }
        return cls(**figures(run, evaluation), **cls.main_figures(evaluation), **chosen)

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        """Return the values of the task's own fields."""
        return {}

    def summary(self) -> str:
        """Return the figures on the validation images in a sentence."""
        return self.both_models(self.val)

    def choice(self) -> str:
        """Return a sentence on the weights of the int8 file; empty if there was no choice."""
        if not self.chosen:
            return ""
        return f"The int8 file has the weights {WEIGHTS[self.chosen]}: {self.reason}."

    def test_summary(self) -> str:
        """Return the figures on the test images in a sentence; empty without test images."""
        if not self.test:
            return ""
        count = f"{self.images['test']:,} " if "test" in self.images else ""
        return f"on the {count}test images: {self.both_models(self.test)}"

    def both_models(self, figures: Mapping[str, Any]) -> str:
        """Return the figures in `summary_figures` of the float and the int8 model, as text."""
        exact, int8 = figures[FLOAT], figures[INT8]
        return "; ".join(
            f"{name} {three(exact[key])} float, {three(int8[key])} int8"
            for key, name in self.summary_figures
        )

    def __str__(self) -> str:
        float_bytes, int8_bytes = (
            (self.folder / name).stat().st_size for name in ("model.keras", "model.tflite")
        )
        run = shlex.quote(str(self.folder))
        lines = [
            self.summary(),
            *filter(None, [self.test_summary(), self.choice()]),
            f"Model:  {self.folder / 'model.tflite'} ({int8_bytes:,} bytes; model.keras, in float, "
            f"has {float_bytes:,})",
            f"Report: {(self.folder / 'report.html').absolute().as_uri()}",
            f"Next:   kzoo predict {run} IMAGE...    predict images",
            f"        kzoo android {run}             an Android app around it",
        ]
        return "\n".join(lines)


def three(value: float | None) -> str:
    """Return a figure of results.json with three digits; "-" for None."""
    return "-" if value is None else f"{value:.3f}"


def write_results(
    run: Run, evaluation: Evaluation, history: Sequence[Row], made: Provenance
) -> Any:
    """Write results.json and return the task's RunResults."""
    results: RunResults = run.task.report.Results.of(run, evaluation, history)
    kept = dataclasses.asdict(results) | {"folder": run.folder.name}
    kept |= {"made": dataclasses.asdict(made)}
    write_json(run.folder / "results.json", finite(kept | dict(results.val)))
    return results


def figures(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Return {"folder", "val", "test", "images"}, the fields of all RunResults."""
    found = {
        split.name: {
            kind: run.task.report.figures(score, run.dataset.labels)
            for kind, score in split.scores.items()
        }
        for split in evaluation.splits
    }
    images = {name: len(getattr(run.dataset, name, ())) for name in ("train", "val", "test")}
    return {
        "folder": run.folder, "val": found["val"], "test": found.get("test"),
        "images": {name: count for name, count in images.items() if count},
    }  # fmt: skip


def has_ended(run: Run) -> bool:
    """Return whether a run has finished, with the present versions of the libraries.

    The report is written last: if a file is missing or newer than it, the run is not finished.
    """
    results, report = run.folder / "results.json", run.folder / "report.html"
    files = (results, *run.files.values())
    if not all(file.is_file() for file in (*files, report)):
        return False
    if report.stat().st_mtime < max(file.stat().st_mtime for file in files):
        return False
    kept = json.loads(results.read_text(encoding="utf-8"))
    return bool(kept.get("made", {}).get("versions") == versions())


def read_results(folder: Path, kind: type[R]) -> R:
    """Return the results of a finished run."""
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    fields = [field for field in dataclasses.fields(kind) if field.name in kept]
    found = {field.name: kept[field.name] for field in fields}
    nan = {f.name: math.nan for f in fields if f.type is float and found[f.name] is None}
    return kind(**found | nan | {"folder": folder})
