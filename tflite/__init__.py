"""Export: .tflite files made, read, run, compared and timed."""

from kzoo.tflite.audit import Audit, audit
from kzoo.tflite.benchmark import Benchmark, benchmark
from kzoo.tflite.compare import Comparison, compare
from kzoo.tflite.convert import convert
from kzoo.tflite.metadata import (
    BoxOutputs,
    ClassifierOutput,
    DetectionOutputs,
    Metadata,
    SegmenterOutput,
    read_metadata,
)
from kzoo.tflite.run import Runner
from kzoo.tflite.translate import SCHEMES
from kzoo.tflite.verify import Bounds, RejectedFile, verify

__all__ = [
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
    "SegmenterOutput",
    "audit",
    "benchmark",
    "compare",
    "convert",
    "read_metadata",
    "verify",
]
