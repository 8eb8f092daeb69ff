"""The table of published weight files: one row per file, with its source and license.

Metrics are top-1 accuracy on ImageNet-1k, box mAP on COCO and mean IoU on COCO images with VOC's
classes, in percent, as stated by the row's source at the row's resolution.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

Padding = Literal["same", "symmetric"]
Scaling = Literal["tf", "torch"]


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One published weight file, and what it requires of the model and the images.

    name: the value of `weights=` for this model, such as "imagenet:timm-e2400_r224".
    model, alpha: the backbone, one of `kzoo.list_models()`.
    head: "ssdlite", "lraspp" or "deeplabv3"; None for classifiers.
    top: whether a classifier's file includes the classifier.
    metric: the figure published at `source`, in percent; None if there is none.
    digest: "md5:..." or "sha256:...", the latter possibly only its first digits; None if unknown.
        Such a file is checked by the digest that the server sends, and pinned at first use.
    crop_pct, interpolation: how images were resized for `metric`: to resolution / crop_pct, then
        cropped to the centre. None if the source does not say.
    """

    name: str
    model: str
    alpha: float
    task: Literal["classify", "detect", "segment"]
    dataset: str
    classes: int
    resolution: int
    metric: float | None
    source: str
    license: str
    url: str
    file: str
    reader: str
    padding: Padding
    preprocessing: Scaling
    norm_epsilon: float
    digest: str | None = None
    bytes: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    head: str | None = None
    top: bool = True

    @property
    def traits(self) -> dict[str, Any]:
        """What the weights require of the model, as fields of a `Checkpoint`."""
        names = ("padding", "norm_epsilon", "preprocessing")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        figure = "" if self.metric is None else f", {self.metric:g} %"
        part = "" if self.top else ", without classifier"
        return f"{self.model} {self.alpha:g} {self.name} ({self.resolution} px{figure}{part})"


# keras.applications. MD5 sums of V3 are Keras' own; it has none for V1 and V2, whose files are
# TF-slim's checkpoints in Keras' layout, with TF-slim's figures.

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
SLIM = "https://github.com/tensorflow/models/blob/master/research/slim/nets"
KERAS_V3 = "https://github.com/keras-team/keras/blob/master/keras/src/applications/mobilenet_v3.py"

# alpha: {resolution: top-1}
V1_TOP1 = {
    1.0: {224: 70.9, 192: 70.0, 160: 68.0, 128: 65.2},
    0.75: {224: 68.4, 192: 67.2, 160: 65.3, 128: 62.1},
    0.5: {224: 63.3, 192: 61.7, 160: 59.1, 128: 56.3},
    0.25: {224: 49.8, 192: 47.7, 160: 45.5, 128: 41.5},
}
V2_TOP1 = {
    1.4: {224: 75.0},
    1.3: {224: 74.4},
    1.0: {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3},
    0.75: {224: 69.8, 192: 68.7, 160: 66.4, 128: 63.2, 96: 58.8},
    0.5: {224: 65.4, 192: 63.9, 160: 61.0, 128: 57.7, 96: 51.2},
    0.35: {224: 60.3, 192: 58.2, 160: 55.7, 128: 50.8, 96: 45.5},
}
V1_WIDTHS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
# Stated by two projects that use the file.
V2_SHA256 = {
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5":
        "3e195a2857356cfc092cbbb460beb2a5bce279015d7792598b8d3d9e451902e3",
}  # fmt: skip

# (model, alpha): top-1, and the MD5 of the file with and without top.
V3_FILES = {
    ("mobilenet_v3_large", 1.0): (
        75.6, "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    ("mobilenet_v3_large", 0.75): (
        73.3, "765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
    ("mobilenet_v3_large_minimalistic", 1.0): (
        72.3, "675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
    ("mobilenet_v3_small", 1.0): (
        68.1, "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    ("mobilenet_v3_small", 0.75): (
        65.4, "cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
    ("mobilenet_v3_small_minimalistic", 1.0): (
        61.9, "99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
}  # fmt: skip


def keras_row(
    model: str, alpha: float, size: int, metric: float, source: str, path: str,
    digest: str | None, top: bool,
) -> PublishedWeights:  # fmt: skip
    return PublishedWeights(
        "imagenet:keras", model, alpha, "classify", "ImageNet-1k", 1000, size, metric, source,
        "Apache-2.0", f"{KERAS}/{path}", path.rpartition("/")[2], "keras", "same", "tf", 1e-3,
        digest=digest, top=top,
    )  # fmt: skip


def keras_applications() -> Iterator[PublishedWeights]:
    """Yield the files of keras.applications, with the names that it uses."""
    for top, ending in ((True, ""), (False, "_no_top")):
        for alpha, figures in V1_TOP1.items():
            for size, metric in figures.items():
                path = f"mobilenet/mobilenet_{V1_WIDTHS[alpha]}_{size}_tf{ending}.h5"
                source = f"{SLIM}/mobilenet_v1.md"
                yield keras_row("mobilenet_v1", alpha, size, metric, source, path, None, top)
        for alpha, figures in V2_TOP1.items():
            for size, metric in figures.items():
                stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}"
                digest = V2_SHA256.get(f"{stem}{ending}.h5")
                path, source = f"mobilenet_v2/{stem}{ending}.h5", f"{SLIM}/mobilenet/README.md"
                digest = digest and f"sha256:{digest}"
                yield keras_row("mobilenet_v2", alpha, size, metric, source, path, digest, top)
        ending = "" if top else "_no_top_v2"
        for (model, alpha), (metric, *digests) in V3_FILES.items():
            kind = model.removeprefix("mobilenet_v3_")
            path = f"mobilenet_v3/weights_mobilenet_v3_{kind}_224_{alpha}_float{ending}.h5"
            digest = f"md5:{digests[not top]}"
            yield keras_row(model, alpha, 224, metric, KERAS_V3, path, digest, top)


# torchvision: the sources that state URL and figures stand in its repository. File names hold the
# first eight digits of the SHA-256; longer ones are as projects that pin the file state them.

TORCH = "https://download.pytorch.org/models"
VISION = "https://github.com/pytorch/vision/blob/main/torchvision/models"


def torchvision_classifier(
    model: str, recipe: str, metric: float, digest: str, crop_pct: float, module: str,
    size: int | None = None,
) -> PublishedWeights:  # fmt: skip
    file = f"{model}-{digest[:8]}.pth"
    return PublishedWeights(
        f"imagenet:torchvision-{recipe}", model, 1.0, "classify", "ImageNet-1k", 1000, 224, metric,
        f"{VISION}/{module}.py", "BSD-3-Clause", f"{TORCH}/{file}", file, "torchvision",
        "symmetric", "torch", 1e-5 if model == "mobilenet_v2" else 1e-3,
        digest=f"sha256:{digest}", bytes=size, crop_pct=crop_pct, interpolation="bilinear",
    )  # fmt: skip


def torchvision_head(
    name: str, head: str, stem: str, task: Literal["detect", "segment"], dataset: str,
    classes: int, resolution: int, metric: float, digest: str, preprocessing: Scaling,
    module: str, size: int | None = None,
) -> PublishedWeights:  # fmt: skip
    file = f"{stem}-{digest[:8]}.pth"
    return PublishedWeights(
        name, "mobilenet_v3_large", 1.0, task, dataset, classes, resolution, metric,
        f"{VISION}/{module}.py", "BSD-3-Clause", f"{TORCH}/{file}", file, "torchvision",
        "symmetric", preprocessing, 1e-3, digest=f"sha256:{digest}", bytes=size, head=head,
    )  # fmt: skip


RESIZED_256, RESIZED_232 = 224 / 256, 224 / 232

TORCHVISION = (
    torchvision_classifier(
        "mobilenet_v2", "v1", 71.878,
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889", RESIZED_256,
        "mobilenetv2", 14_212_972),
    torchvision_classifier(
        "mobilenet_v2", "v2", 72.154, "7ebf99e0", RESIZED_232, "mobilenetv2"),
    torchvision_classifier(
        "mobilenet_v3_large", "v1", 74.042, "8738ca79", RESIZED_256, "mobilenetv3"),
    torchvision_classifier(
        "mobilenet_v3_large", "v2", 75.274,
        "5c1a416349c4cf298f2a6a5e2600ed0ee55e604713578f5e74e6bc8bcaef7997",
        RESIZED_232, "mobilenetv3", 22_132_113),
    torchvision_classifier(
        "mobilenet_v3_small", "v1", 67.668, "047dcff4", RESIZED_256, "mobilenetv3"),
    # On MobileNetV3Large(reduced_tail=True); 90 classes and background.
    torchvision_head(
        "coco", "ssdlite", "ssdlite320_mobilenet_v3_large_coco", "detect", "COCO 2017", 90, 320,
        21.3, "a79551df90c79834bcd3bb3845ef9d966b5449a3a9b2833ae8404778ca5d65d2", "tf",
        "detection/ssdlite", 14_069_355),
    # On MobileNetV3Large(output_stride=16); 20 classes and background.
    torchvision_head(
        "voc", "lraspp", "lraspp_mobilenet_v3_large", "segment", "COCO 2017, VOC classes", 21, 520,
        57.9, "d234d4eae9d55d5f76de18b77cf0dc62c66fe5c5482758209d00f950c92bb280", "torch",
        "segmentation/lraspp", 13_097_061),
    # DeepLabV3(aspp_rates=(12, 24, 36), refine=True).
    torchvision_head(
        "voc", "deeplabv3", "deeplabv3_mobilenet_v3_large", "segment", "COCO 2017, VOC classes",
        21, 520, 60.3, "fc3c493d68e89cc31ef488c803d5d7dd2f3190fb570598faa49fef69be8e5e70", "torch",
        "segmentation/deeplabv3"),
)  # fmt: skip

# timm. Figures: results/results-imagenet.csv of its repository; traits: its pretrained_cfg. Its
# files on the hub have no hash in their names; the hub tells the SHA-256 with each download.

HUB = "https://huggingface.co/timm"
TIMM_RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
)


def timm(
    tag: str, resolution: int, metric: float, crop_pct: float, preprocessing: Scaling = "torch"
) -> Callable[[str, float], PublishedWeights]:
    """Return a function (model, alpha) -> row for a timm tag.

    A tag is, for example, "mobilenetv4_conv_small.e2400_r224_in1k".
    """
    architecture, _, recipe = tag.partition(".")
    tf = architecture.startswith("tf_")  # converted from TensorFlow: so are padding and epsilon
    recipe = "tf" if tf else recipe.removesuffix("_in1k")
    return lambda model, alpha: PublishedWeights(
        f"imagenet:timm-{recipe}", model, alpha, "classify", "ImageNet-1k", 1000, resolution,
        metric, TIMM_RESULTS, "Apache-2.0", f"{HUB}/{tag}/resolve/main/model.safetensors",
        f"{tag}.safetensors", "timm", "same" if tf else "symmetric", preprocessing,
        1e-3 if tf else 1e-5, crop_pct=crop_pct, interpolation="bilinear" if tf else "bicubic",
    )  # fmt: skip


# (model, alpha): tag, resolution, top-1, crop_pct.
TIMM = {
    ("mobilenet_v1", 1.0): (timm("mobilenetv1_100.ra4_e3600_r224_in1k", 224, 75.388, 0.875, "tf"),),
    ("mobilenet_v1", 1.25): (timm("mobilenetv1_125.ra4_e3600_r224_in1k", 224, 76.92, 0.9, "tf"),),
    ("mobilenet_v2", 0.5): (timm("mobilenetv2_050.lamb_in1k", 224, 65.928, 0.875),),
    ("mobilenet_v2", 1.0): (timm("mobilenetv2_100.ra_in1k", 224, 72.91, 0.875),),
    ("mobilenet_v2", 1.4): (timm("mobilenetv2_140.ra_in1k", 224, 76.528, 0.875),),
    ("mobilenet_v3_large", 1.0): (
        timm("mobilenetv3_large_100.ra4_e3600_r224_in1k", 224, 76.31, 0.95, "tf"),
        timm("mobilenetv3_large_100.ra_in1k", 224, 75.784, 0.875),
        timm("tf_mobilenetv3_large_100.in1k", 224, 75.51, 0.875, "tf"),
    ),
    ("mobilenet_v3_large", 0.75): (
        timm("tf_mobilenetv3_large_075.in1k", 224, 73.442, 0.875, "tf"),
    ),
    ("mobilenet_v3_large_minimalistic", 1.0): (
        timm("tf_mobilenetv3_large_minimal_100.in1k", 224, 72.27, 0.875, "tf"),
    ),
    ("mobilenet_v3_small", 1.0): (
        timm("tf_mobilenetv3_small_100.in1k", 224, 67.922, 0.875, "tf"),
        timm("mobilenetv3_small_100.lamb_in1k", 224, 67.636, 0.875),
    ),
    ("mobilenet_v3_small", 0.75): (
        timm("tf_mobilenetv3_small_075.in1k", 224, 65.706, 0.875, "tf"),
        timm("mobilenetv3_small_075.lamb_in1k", 224, 65.284, 0.875),
    ),
    ("mobilenet_v3_small", 0.5): (timm("mobilenetv3_small_050.lamb_in1k", 224, 57.918, 0.875),),
    ("mobilenet_v3_small_minimalistic", 1.0): (
        timm("tf_mobilenetv3_small_minimal_100.in1k", 224, 62.892, 0.875, "tf"),
    ),
    ("mobilenet_v4_conv_small", 0.5): (
        timm("mobilenetv4_conv_small_050.e3000_r224_in1k", 224, 64.778, 0.875, "tf"),
    ),
    ("mobilenet_v4_conv_small", 1.0): (
        timm("mobilenetv4_conv_small.e2400_r224_in1k", 224, 73.756, 0.875),
        timm("mobilenetv4_conv_small.e1200_r224_in1k", 224, 73.45, 0.875),
        timm("mobilenetv4_conv_small.e3600_r256_in1k", 256, 74.534, 0.95, "tf"),
    ),
    ("mobilenet_v4_conv_medium", 1.0): (
        timm("mobilenetv4_conv_medium.e500_r224_in1k", 224, 79.092, 0.95),
        timm("mobilenetv4_conv_medium.e500_r256_in1k", 256, 79.916, 0.95),
        timm("mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k", 384, 82.776, 0.95),
    ),
    ("mobilenet_v4_conv_large", 1.0): (
        timm("mobilenetv4_conv_large.e500_r256_in1k", 256, 81.864, 0.95),
        timm("mobilenetv4_conv_large.e600_r384_in1k", 384, 82.974, 0.95),
    ),
    ("mobilenet_v4_hybrid_medium", 1.0): (
        timm("mobilenetv4_hybrid_medium.e500_r224_in1k", 224, 80.432, 0.95),
        timm("mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k", 256, 82.36, 0.95),
        timm("mobilenetv4_hybrid_medium.ix_e550_r256_in1k", 256, 81.478, 0.95),
        timm("mobilenetv4_hybrid_medium.ix_e550_r384_in1k", 384, 82.952, 0.95),
    ),
    ("mobilenet_v4_hybrid_large", 1.0): (
        timm("mobilenetv4_hybrid_large.ix_e600_r384_in1k", 384, 83.996, 0.95),
        timm("mobilenetv4_hybrid_large.e600_r384_in1k", 384, 83.826, 0.95),
    ),
}

PUBLISHED: tuple[PublishedWeights, ...] = (
    *keras_applications(),
    *TORCHVISION,
    *(row(*net) for net, rows in TIMM.items() for row in rows),
)
