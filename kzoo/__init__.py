"""kzoo: MobileNets for Keras 3, from a folder of pictures to a verified int8 file."""

from kzoo.build import build, pyramid
from kzoo.mobilenet_v2 import MobileNetV2
from kzoo.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from kzoo.profile import profile
from kzoo.qat import distill, quantize
from kzoo.weights import load_weights
from kzoo.zoo import get_model, list_models

__all__ = [
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "build",
    "distill",
    "get_model",
    "list_models",
    "load_weights",
    "profile",
    "pyramid",
    "quantize",
]
