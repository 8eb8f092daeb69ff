"""Comparison of two finished runs of the same task: `kzoo compare RUN1 RUN2`."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kzoo.recipes.evaluation.evaluate import SPLIT_NAMES, TEST, VAL
from kzoo.recipes.inputs import data_root, read_config, require_ended, require_same_task
from kzoo.recipes.task import FLOAT, INT8, get_task

NOT_COMPARED = ("labels", "images", "out", "damaged", "task")  # settings
SURE = 2.0  # standard errors from which on a difference is more than chance


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of both runs; None if a run does not have it."""

    split: str  # "val" or "test"
    model: str  # "float" or "int8"
    name: str  # such as "accuracy", or "by_class hat recall" of one class
    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """The second minus the first."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first

    @property
    def by_class(self) -> bool:
        return " " in self.name


@dataclasses.dataclass(frozen=True)
class Paired:
    """The mean difference of two models over the same images."""

    split: str
    model: str
    images: int
    difference: float  # mean over images of the second's score minus the first's
    standard_error: float

    @property
    def is_chance(self) -> bool:
        """Whether the difference is within two standard errors."""
        return abs(self.difference) <= SURE * self.standard_error

    def __str__(self) -> str:
        where = f"{self.model}, on the same {self.images} {SPLIT_NAMES[self.split]} images"
        spread = f"{self.difference:+.4f} with a standard error of {self.standard_error:.4f}"
        if self.is_chance:
            return f"{where}: the second differs by {spread}, which may be chance"
        better = "better" if self.difference > 0 else "worse"
        return f"{where}: the second is {better}, {spread}"


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """The result of `compare_runs`. `str` of it is a verdict and tables."""

    first: Path
    second: Path
    task: str
    settings: Mapping[str, tuple[Any, Any]]  # those that differ
    figures: Sequence[Figure]
    paired: Sequence[Paired]
    other_classes: str = ""  # how the classes of the runs differ; "" if they do not

    @property
    def verdict(self) -> str:
        """A sentence that says which run is better, on test images if there are any."""
        if self.other_classes:
            return (
                f"The runs have other classes ({self.other_classes}): their figures stand side by "
                "side and do not say which model is better."
            )
        for split in (TEST, VAL):
            found = [one for one in self.paired if (one.split, one.model) == (split, INT8)]
            if found:
                chosen = " Validation images chose the best epochs." if split == VAL else ""
                return f"{found[0]}.{chosen}"
        return (
            "The runs were not scored on the same images with the same labels, or their task keeps "
            "no answers by image: the figures stand side by side, without a standard error."
        )

    def as_json(self) -> dict[str, Any]:
        """Return verdict, settings, figures and paired differences."""
        return {
            "verdict": self.verdict,
            "runs": [self.first, self.second],
            "task": self.task,
            "settings": self.settings,
            "figures": [dataclasses.asdict(x) | {"difference": x.difference} for x in self.figures],
            "paired": [dataclasses.asdict(one) for one in self.paired],
        }

    def __str__(self) -> str:
        lines = [self.verdict, "", f"first   {self.first}", f"second  {self.second}"]
        lines += [f"{key}: {a!r}, {b!r}" for key, (a, b) in self.settings.items()]
        width = max([20, *(len(x.name) for x in self.figures)])
        for split in (VAL, TEST):
            for by_class in (False, True):
                own = [x for x in self.figures if (x.split, x.by_class) == (split, by_class)]
                if own:
                    what = "by class, " if by_class else ""
                    head = f"{what}{SPLIT_NAMES[split]} images"
                    lines += ["", f"{head:{width + 6}} {'first':>9} {'second':>9} {'change':>9}"]
                    lines += [
                        f"{x.name:{width}} {x.model:5} "
                        + " ".join(f"{four_digits(v, sign):>9}" for v, sign in (
                            (x.first, ""), (x.second, ""), (x.difference, "+")))
                        for x in own
                    ]  # fmt: skip
        return "\n".join([*lines, "", *(f"{one}." for one in self.paired)])


def four_digits(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def compare_runs(first: str | Path, second: str | Path) -> RunComparison:
    """Return a comparison of the stored results of two finished runs of the same task.

    For tasks that store predictions by image, the mean difference on common images has a standard
    error. Raises ValueError if a run is not finished or their tasks differ.
    """
    one, two = Path(first), Path(second)
    for folder in (one, two):
        require_ended(folder, "results.json")
    require_same_task(one, two)
    configs = read_config(one), read_config(two)
    task = configs[0]["task"]
    settings = {
        key: (configs[0].get(key), configs[1].get(key))
        for key in dict.fromkeys([*configs[0], *configs[1]])
        if key not in NOT_COMPARED and configs[0].get(key) != configs[1].get(key)
    }
    kept = [json.loads((x / "results.json").read_text(encoding="utf-8")) for x in (one, two)]
    classes = classes_apart(*(config.get("labels") or () for config in configs))
    paired = () if classes else tuple(pairs(one, two, task))
    return RunComparison(one, two, task, settings, tuple(figures(*kept)), paired, classes)


def classes_apart(first: Sequence[str], second: Sequence[str]) -> str:
    """Return which classes only one of two runs has, as text; "" if none or not known."""
    if not first or not second:  # runs of before config.json had them
        return ""
    apart = {
        "only the first": [label for label in first if label not in set(second)],
        "only the second": [label for label in second if label not in set(first)],
    }
    words = [
        f"{who} has {', '.join(names[:3])}{', ...' if names[3:] else ''}"
        for who, names in apart.items() if names
    ]  # fmt: skip
    return "; ".join(words)


def figures(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield what two results.json hold of each split and model."""
    for split in (VAL, TEST):
        for model in (FLOAT, INT8):
            one, two = (
                dict(flat((kept.get(split) or {}).get(model) or {})) for kept in (first, second)
            )
            for name in dict.fromkeys([*one, *two]):
                yield Figure(split, model, name, one.get(name), two.get(name))


def flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested figures, with the names of what they stand in."""
    for key, inside in value.items():
        name = f"{before} {key}".strip()
        if isinstance(inside, Mapping):
            yield from flat(inside, name)
        elif isinstance(inside, int | float) and not isinstance(inside, bool):
            yield name, float(inside)


def pairs(first: Path, second: Path, task: str) -> Iterator[Paired]:
    """Yield the differences on the images that both runs were scored on, with one label."""
    of_image = get_task(task).report.image_scores
    roots = data_root(first), data_root(second)
    for split in (VAL, TEST):
        one, two = of_image(first, split), of_image(second, split)
        same = [key for key in sorted(one.keys() & two.keys()) if same_file(key[0], *roots)]
        for model in (FLOAT, INT8) if len(same) > 1 else ():
            apart = [two[key][model] - one[key][model] for key in same]
            mean = sum(apart) / len(apart)
            spread = math.sqrt(sum((x - mean) ** 2 for x in apart) / (len(apart) - 1))
            yield Paired(split, model, len(apart), mean, spread / math.sqrt(len(apart)))


def same_file(name: str, first: Path, second: Path) -> bool:
    """Return whether images of one name may be the same: False for files of different lengths.

    Data may have been moved or deleted since: then the names decide.
    """
    files = first / name, second / name
    return not all(map(Path.is_file, files)) or files[0].stat().st_size == files[1].stat().st_size
