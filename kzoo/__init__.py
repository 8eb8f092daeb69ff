"""kzoo: MobileNets for Keras 3, from a folder of pictures to a verified int8 file."""

from kzoo.build import pyramid
from kzoo.mobilenet_v2 import MobileNetV2
from kzoo.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from kzoo.zoo import get_model, list_models

__all__ = ["MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "get_model", "list_models", "pyramid"]
