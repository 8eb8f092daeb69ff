"""`over_seeds`: repeat a run with several seeds; mean and standard deviation of its figures."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from kzoo.arguments import is_whole
from kzoo.files import write_json
from kzoo.recipes import distributed as distribute
from kzoo.recipes import progress
from kzoo.recipes.evaluation.results import RunResults
from kzoo.recipes.training.run_folder import run_folder

SUMMARY = "seeds.json"


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a run."""

    mean: float
    std: float  # sample standard deviation
    values: tuple[float, ...]  # one a seed

    @classmethod
    def of(cls, values: tuple[float, ...]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values), values)

    def __str__(self) -> str:
        each = ", ".join(f"{value:.3f}" for value in self.values)
        return f"{self.mean:.3f} ± {self.std:.3f} ({each})"


@dataclasses.dataclass(frozen=True)
class SeedResults:
    """The results of a run with each seed. `spreads`: {"val float accuracy": Spread, ...}."""

    folder: Path
    runs: tuple[RunResults, ...]
    spreads: Mapping[str, Spread]

    def __str__(self) -> str:
        lines = [f"{len(self.runs)} seeds, mean ± standard deviation (each):"]
        lines += [f"  {name:28} {spread}" for name, spread in self.spreads.items()]
        return "\n".join([*lines, f"Runs:   {self.folder}/seed-*, {self.folder / SUMMARY}"])


def over_seeds(
    recipe: Callable[..., RunResults], data: str | Path, *, seeds: int = 3, **options: Any
) -> SeedResults:
    """Run a recipe with several seeds, from `seed` on, in folders OUT/seed-S; write seeds.json.

    recipe: `classify`, `multilabel`, `detect` or `segment`; options: its options. Event files of
        `tensorboard` are in DIR/seed-S.

    Interrupted, the same call resumes. If the data have no split, it changes with the seed. Raises
    ValueError for fewer than two seeds and if OUT has a single run.
    """
    if not is_whole(seeds) or seeds < 2:
        raise ValueError(f"seeds must be a whole number, at least 2. Received: {seeds!r}")
    folder, first = run_folder(data, options.get("out")), options.get("seed", 0)
    if (folder / "config.json").exists():
        raise ValueError(
            f"{folder} holds a run of one seed. Use another --out with --seeds, in which each "
            "seed gets its own folder."
        )
    runs: list[RunResults] = []
    for seed in range(first, first + seeds):
        with progress.quiet(options.get("quiet", False)):
            progress.show(f"Seed {seed}, {len(runs) + 1} of {seeds}")
        own = {"seed": seed, "out": str(folder / f"seed-{seed}")}
        if options.get("tensorboard"):  # in one folder, a stage's curves would be those of all
            own["tensorboard"] = str(Path(options["tensorboard"]) / f"seed-{seed}")
        runs.append(recipe(data, **options | own))
        keras.backend.clear_session()
    results = SeedResults(folder, tuple(runs), spreads(runs))
    if distribute.first():
        write_json(folder / SUMMARY, {k: dataclasses.asdict(v) for k, v in results.spreads.items()})
    return results


def spreads(runs: list[RunResults]) -> dict[str, Spread]:
    """Return the spread of each figure that is one number: accuracy, mAP, mean IoU ..."""
    found: dict[str, Spread] = {}
    for split in ("val", "test"):
        for kind, figures in (getattr(runs[0], split) or {}).items():
            for name in figures:
                each = [getattr(run, split)[kind][name] for run in runs]
                if all(isinstance(value, float) for value in each):  # None: nothing to find
                    found[f"{split} {kind} {name}"] = Spread.of(tuple(map(float, each)))
    return found
