"""The names that `kzoo` offers, which kzoo/__init__.py imports on demand."""

from kzoo.backbones.build import build, pyramid
from kzoo.backbones.mobilenet_v1 import MobileNetV1
from kzoo.backbones.mobilenet_v2 import MobileNetV2
from kzoo.backbones.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from kzoo.backbones.mobilenet_v4 import (
    MobileNetV4ConvLarge,
    MobileNetV4ConvMedium,
    MobileNetV4ConvSmall,
    MobileNetV4HybridLarge,
    MobileNetV4HybridMedium,
)
from kzoo.backbones.profile import profile
from kzoo.detection.anchors import Anchors
from kzoo.detection.detections import Detections, detections
from kzoo.detection.detector import Detector
from kzoo.detection.ssdlite import SSDLite
from kzoo.preprocessing import preprocess_input
from kzoo.quantization.distill import distill
from kzoo.quantization.quantize import quantize
from kzoo.registry import create_model, get_model, list_models
from kzoo.segmentation.deeplab import DeepLabV3
from kzoo.segmentation.losses import SegmentationLoss
from kzoo.segmentation.lraspp import LRASPP
from kzoo.segmentation.masks import mask_at, score_masks
from kzoo.weights.batch_norm import freeze_batch_norm, recalibrate_batch_norm
from kzoo.weights.labels import decode_predictions, labels
from kzoo.weights.loading import load_weights
from kzoo.weights.named import list_weights

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
    "create_model",
    "decode_predictions",
    "detections",
    "distill",
    "freeze_batch_norm",
    "get_model",
    "labels",
    "list_models",
    "list_weights",
    "load_weights",
    "mask_at",
    "preprocess_input",
    "profile",
    "pyramid",
    "quantize",
    "recalibrate_batch_norm",
    "score_masks",
]
