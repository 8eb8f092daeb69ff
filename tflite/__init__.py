"""Export: .tflite files made, read, run, compared and timed."""

from kzoo.tflite.audit import Audit, audit
from kzoo.tflite.compare import Comparison, compare
from kzoo.tflite.convert import SCHEMES, convert
from kzoo.tflite.run import Runner

__all__ = ["SCHEMES", "Audit", "Comparison", "Runner", "audit", "compare", "convert"]
