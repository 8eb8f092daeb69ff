"""Quantization: an int8 model that is trained, saved and converted like any other."""

from kzoo.quantization.distill import distill
from kzoo.quantization.layers import (
    FakeQuant,
    Gate,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv2D,
)
from kzoo.quantization.quantize import quantize
from kzoo.quantization.sensitivity import Sensitivity, sensitivity

__all__ = [
    "FakeQuant",
    "Gate",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantDense",
    "QuantDepthwiseConv2D",
    "Sensitivity",
    "distill",
    "quantize",
    "sensitivity",
]
