"""Quantization: an int8 model that is trained, saved and converted like any other."""

from kzoo.qat.distill import distill
from kzoo.qat.layers import FakeQuant, Gate, QuantConv2D, QuantDense, QuantDepthwiseConv2D
from kzoo.qat.quantize import quantize
from kzoo.qat.sensitivity import Sensitivity, sensitivity

__all__ = [
    "FakeQuant",
    "Gate",
    "QuantConv2D",
    "QuantDense",
    "QuantDepthwiseConv2D",
    "Sensitivity",
    "distill",
    "quantize",
    "sensitivity",
]
