"""`kzoo plan`: estimate time and memory of a training run."""

from typing import Any

from kzoo.recipes.configs.plan import PlanConfig
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command


def run(options: PlanConfig) -> Any:
    if options.data is not None:
        require_data(options.data)
    from kzoo.recipes.programs.plan import plan

    found = plan(options)
    if not options.json:
        return found
    reckoned = ("hours", "slowest", "rates", "memory", "exchanged")
    return {"verdict": found.verdict} | {k: getattr(found, k) for k in reckoned} | vars(found)


COMMAND = Command(
    "plan",
    "estimate memory, bytes per second, hours and the bottleneck of a training run",
    PlanConfig,
    run,
    "kzoo plan --model mobilenet_v3_large --images 1000000 --devices 8 --data packed",
)
