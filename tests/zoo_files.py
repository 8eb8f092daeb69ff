"""A .tflite file of every family and head, small and with something learnt, for checks of clients.

    python tests/zoo_files.py FOLDER [--only NAME ...]

Classifiers have learnt stripes (tests/conftest.py): batch statistics are settled on them, and the
last layer is solved for. Detectors and segmenters have settled statistics and random heads, which
serves to compare numbers. Files that are there already are kept.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
from conftest import CLASSES, SIDE, gratings, settled, solved

import kzoo
from kzoo.tflite import convert
from kzoo.tflite.convert.mask_output import end_in_mask
from kzoo.tflite.convert.postprocess import add_postprocess

SCHEMES = ("float16", "int8")
# Other forms (kzoo.tflite.FORMS) of one net.
FORMS = {"v3_small": ("npu", "micro", "edgetpu")}
SHAPE = (SIDE, SIDE, 3)
WIDE = (SIDE, 3 * SIDE // 2, 3)
FLOAT_ONLY = ("v4_hybrid_medium",)  # kzoo.quantize has no int8 form of its attention


def classifier(
    builder: Callable[..., keras.Model], alpha: float, *, he: bool = False, **options
) -> keras.Model:
    """A classifier that has learnt stripes; `he`: with kernels of He's size, see `enlarge`."""
    images, labels = gratings(384, seed=0)
    net = builder(alpha, input_shape=SHAPE, classes=CLASSES, classifier_activation=None, **options)
    if he:
        enlarge(net)
    return solved(settled(net, images[:128]), images, labels)


def enlarge(net: keras.Model) -> None:
    """Raise kernels to He's deviation: in the deepest nets, variances fall below BN's epsilon."""
    for layer in net.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            height, width, channels, _ = layer.kernel.shape
            deep = isinstance(layer, keras.layers.DepthwiseConv2D)
            wanted = (2 / (height * width * (1 if deep else channels))) ** 0.5
            spread = float(keras.ops.std(layer.kernel)) or wanted
            layer.kernel.assign(layer.kernel * max(1.0, wanted / spread))


def stripes(n: int, shape: tuple[int, ...] = SHAPE, *, seed: int = 0) -> np.ndarray:
    """Return images (n, *shape) of stripes; wide ones are continued upside down."""
    images = gratings(n, seed=seed)[0]
    return np.concatenate([images, images[:, ::-1]], axis=2)[:, : shape[0], : shape[1]]


def backbone(
    builder: Callable[..., keras.Model], alpha: float, shape: tuple[int, ...] = SHAPE, **options
) -> keras.Model:
    net = builder(alpha, input_shape=shape, include_top=False, **options)
    return settled(net, stripes(128, shape))


def detector(shape: tuple[int, ...] = SHAPE) -> keras.Model:
    net = kzoo.SSDLite(backbone(kzoo.MobileNetV3Small, 0.35, shape), CLASSES)
    for layer in net.layers:
        if "project" in layer.name and layer.name.startswith("logits"):
            layer.kernel.assign(layer.kernel * 20)  # else all anchors say the same
    return settled(net, stripes(128, shape))


def segmenter(
    head: Callable[..., keras.Model], shape: tuple[int, ...] = SHAPE, **options
) -> keras.Model:
    net = head(backbone(kzoo.MobileNetV3Small, 0.35, shape, output_stride=16), CLASSES, **options)
    return settled(net, stripes(128, shape))


MINIMALISTIC = functools.partial(kzoo.MobileNetV3Small, minimalistic=True)
NETS: dict[str, Callable[[], keras.Model]] = {
    "v1": lambda: classifier(kzoo.MobileNetV1, 0.25),
    "v2": lambda: classifier(kzoo.MobileNetV2, 0.35),
    "v3_large": lambda: classifier(kzoo.MobileNetV3Large, 0.35),
    "v3_small": lambda: classifier(kzoo.MobileNetV3Small, 0.35),
    "v3_small_minimalistic": lambda: classifier(MINIMALISTIC, 0.35),
    "v4_conv_small": lambda: classifier(kzoo.MobileNetV4ConvSmall, 0.35),
    "v4_hybrid_medium": lambda: classifier(kzoo.MobileNetV4HybridMedium, 0.25, he=True),
    "ssdlite": detector,
    "lraspp": lambda: segmenter(kzoo.LRASPP),
    "deeplab": lambda: segmenter(kzoo.DeepLabV3, filters=32, decoder=True, aspp_rates=(1, 2)),
}


def zoo_files(
    folder: Path, only: tuple[str, ...] = (), schemes: tuple[str, ...] = SCHEMES
) -> Iterator[tuple[str, str, Path]]:
    """(Net, scheme or form, file) of each, made in `folder` where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in NETS.items():
        if only and name not in only:
            continue
        net = None
        for scheme in (*schemes, *FORMS.get(name, ())):
            if scheme == "int8" and name in FLOAT_ONLY:
                continue
            file = folder / f"{name}_{scheme}.tflite"
            if not file.is_file():
                keras.utils.set_random_seed(0)
                net = net or make()
                target = {"float16": "gpu", "int8": "cpu"}.get(scheme, scheme)
                convert(net, file, target=target, calibration=gratings(100, seed=0)[0])
            yield name, scheme, file
        if name == "ssdlite":
            other = folder / "ssdlite_op_int8.tflite"
            yield "ssdlite_op", "int8", other if other.is_file() else add_postprocess(file, other)
        if name == "lraspp":
            other = folder / "lraspp_mask_int8.tflite"
            if not other.is_file():
                other.write_bytes(file.read_bytes())
                end_in_mask(other)
            yield "lraspp_mask", "int8", other


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=tuple(NETS), default=())
    given = parser.parse_args()
    for name, scheme, file in zoo_files(given.folder, tuple(given.only)):
        print(name, scheme, f"{file.stat().st_size:,}", flush=True)
