"""`evaluate`: metrics of a run's float model and int8 file on validation and test images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from kzoo.recipes import progress
from kzoo.recipes.task import FLOAT, INT8, Run, looks_of, require_tiles
from kzoo.sizes import Tiles
from kzoo.tflite import Comparison
from kzoo.weights.saved_model import load_model

VAL, TEST = "val", "test"
SPLIT_NAMES = {VAL: "validation", TEST: "test"}


@dataclasses.dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """Both models on one split: predictions and scores by model, and by model with tiles."""

    name: str  # "val" or "test"
    examples: Any
    predictions: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Both models on the validation images and, if there are any, on the test images."""

    val: SplitEvaluation
    test: SplitEvaluation | None
    comparison: Comparison | None  # of their outputs; None if the file's output is a mask
    agreement: str = ""  # a sentence on common detections, if the comparison does not show them
    model: keras.Model | None = None  # the float model

    @property
    def splits(self) -> tuple[SplitEvaluation, ...]:
        return (self.val, self.test) if self.test else (self.val,)

    @property
    def verdict(self) -> str:
        """A sentence that says how good the file is and what to do next."""
        if self.comparison:
            return " ".join(filter(None, [self.agreement, self.comparison.verdict]))
        return "The file ends in a mask where the model gives logits: compare their scores."

    def as_json(self) -> dict[str, Any]:
        """Return a dict for JSON, without images and predictions."""
        return {
            "verdict": self.verdict,
            "outputs": self.comparison,
            "scores": self.val.scores,
            "test": self.test.scores if self.test else None,
        }

    def __str__(self) -> str:
        lines = [self.verdict, *(["", self.comparison.table] if self.comparison else [])]
        for split in self.splits:
            where = f" on the {SPLIT_NAMES[split.name]} images" if self.test else ""
            lines += [f"{name:6} {score}{where}" for name, score in split.scores.items()]
        return "\n".join(lines)


def evaluate(
    run: Run, model: keras.Model | None = None, *, layers: int = 0,
    tiles: Tiles | None = None,
) -> Evaluation:  # fmt: skip
    """Return the evaluation of a run's float model and int8 file.

    model: the float model, if it is loaded already.
    layers: as in `kzoo.tflite.compare`.
    tiles: (rows, columns) or "auto", for detectors: also evaluate with tiles, under names that
        contain them.

    Raises ValueError for tiles in other tasks.
    """
    require_tiles(run.task, tiles)
    model = model or load_model(run.model)
    present = [name for name in (VAL, TEST) if len(getattr(run.dataset, name, ()))]
    found = {}
    with progress.bar("evaluating", 2 * len(present) + 1) as bar:
        for name in present:
            examples, predictions = getattr(run.dataset, name), {}
            for kind, source in ((FLOAT, model), (INT8, run.int8)):
                what = f"running the {kind} model on the {SPLIT_NAMES[name]} images"
                bar.advance(0, description=what)
                for own, looks in looks_of(kind, tiles).items():
                    predictions[own] = run.task.infer(run, source, examples, **looks)
                bar.advance()
            scores = {
                name: run.task.score(own, examples, run.dataset.labels)
                for name, own in predictions.items()
            }
            found[name] = SplitEvaluation(name, examples, predictions, scores)
        bar.advance(0, description="comparing the two")
        comparison = run.task.compare(run, model, run.dataset.val, layers=layers)
        bar.advance()
    agreement = run.task.report.agreement(found[VAL])
    return Evaluation(found[VAL], found.get(TEST), comparison, agreement, model)
