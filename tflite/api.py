"""The names that `kzoo.tflite` offers, which its __init__.py imports on demand."""

from kzoo.tflite.convert.converter import convert
from kzoo.tflite.convert.forms import FORMS
from kzoo.tflite.convert.translation import SCHEMES
from kzoo.tflite.convert.within import Search, convert_within
from kzoo.tflite.inspect.audit import Audit, audit
from kzoo.tflite.inspect.benchmark import Benchmark, benchmark
from kzoo.tflite.inspect.compare import Comparison, compare
from kzoo.tflite.inspect.targets.verdicts import Verdict, targets
from kzoo.tflite.inspect.verify import Bounds, RejectedFile, verify
from kzoo.tflite.metadata.reading import (
    BoxOutputs,
    ClassifierOutput,
    DetectionOutputs,
    Metadata,
    SegmenterOutput,
    read_metadata,
)
from kzoo.tflite.runtime.runner import Runner

__all__ = [
    "FORMS",
    "SCHEMES",
    "Audit",
    "Benchmark",
    "Bounds",
    "BoxOutputs",
    "ClassifierOutput",
    "Comparison",
    "DetectionOutputs",
    "Metadata",
    "RejectedFile",
    "Runner",
    "Search",
    "SegmenterOutput",
    "Verdict",
    "audit",
    "benchmark",
    "compare",
    "convert",
    "convert_within",
    "read_metadata",
    "targets",
    "verify",
]
