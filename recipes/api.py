"""The names that `kzoo.recipes` offers, which its __init__.py imports on demand.

Each command of `kzoo` is a function here, except those that `kzoo.tflite` and `kzoo` have: audit,
benchmark, list_models.
"""

from kzoo.recipes.classify import classify
from kzoo.recipes.data.packing import pack
from kzoo.recipes.detect import detect
from kzoo.recipes.evaluation.finished_runs import compare_run, run_sensitivity
from kzoo.recipes.inspection.inspection import inspect_data as inspect
from kzoo.recipes.inspection.page import write_inspection
from kzoo.recipes.multilabel import multilabel
from kzoo.recipes.programs.android_folder import android
from kzoo.recipes.programs.compare_runs import compare_runs
from kzoo.recipes.programs.convert_model import convert_file
from kzoo.recipes.programs.demo import demo
from kzoo.recipes.programs.plan import plan
from kzoo.recipes.programs.predict_images import predict
from kzoo.recipes.programs.seeds import over_seeds
from kzoo.recipes.programs.serve_page import serve
from kzoo.recipes.segment import segment

__all__ = [
    "android",
    "classify",
    "compare_run",
    "compare_runs",
    "convert_file",
    "demo",
    "detect",
    "inspect",
    "multilabel",
    "over_seeds",
    "pack",
    "plan",
    "predict",
    "run_sensitivity",
    "segment",
    "serve",
    "write_inspection",
]
