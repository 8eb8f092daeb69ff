"""kzoo: MobileNets for Keras 3, from a folder of pictures to a verified int8 file."""

from kzoo.boxes import Anchors
from kzoo.build import build, pyramid
from kzoo.detection import Detections, detections
from kzoo.detector import Detector
from kzoo.masks import mask_at, score_masks
from kzoo.mobilenet_v1 import MobileNetV1
from kzoo.mobilenet_v2 import MobileNetV2
from kzoo.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from kzoo.mobilenet_v4 import (
    MobileNetV4ConvLarge,
    MobileNetV4ConvMedium,
    MobileNetV4ConvSmall,
    MobileNetV4HybridLarge,
    MobileNetV4HybridMedium,
)
from kzoo.profile import profile
from kzoo.qat import distill, quantize
from kzoo.segmentation import LRASPP, DeepLabV3
from kzoo.segmentation_loss import SegmentationLoss
from kzoo.ssdlite import SSDLite
from kzoo.weights import load_weights
from kzoo.zoo import get_model, list_models

__all__ = [
    "LRASPP",
    "Anchors",
    "DeepLabV3",
    "Detections",
    "Detector",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "MobileNetV4ConvLarge",
    "MobileNetV4ConvMedium",
    "MobileNetV4ConvSmall",
    "MobileNetV4HybridLarge",
    "MobileNetV4HybridMedium",
    "SSDLite",
    "SegmentationLoss",
    "build",
    "detections",
    "distill",
    "get_model",
    "list_models",
    "load_weights",
    "mask_at",
    "profile",
    "pyramid",
    "quantize",
    "score_masks",
]
