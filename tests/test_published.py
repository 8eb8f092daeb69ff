"""Weights by name: the table, what a name means, and heads that keep the classes they know."""

import dataclasses
import functools
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import torchvision_lraspp, torchvision_models, torchvision_ssdlite
from test_weights import KERAS, save_keras_2, save_safetensors, settled

import kzoo
from kzoo.recipes.configs.detect import DetectConfig
from kzoo.recipes.configs.segment import SegmentConfig
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.data.mask_dataset import MaskDataset
from kzoo.recipes.detect import build as build_detector
from kzoo.recipes.programs.model_card import pretrained
from kzoo.recipes.segment import build as build_segmenter
from kzoo.weights import download, named
from kzoo.weights import published as table
from kzoo.weights.named import published
from kzoo.weights.published import PUBLISHED, PublishedWeights

# Millions of parameters, two digits as timm's results-imagenet.csv prints them.
MILLIONS = {
    ("mobilenet_v1", 1.0): 4.23,
    ("mobilenet_v1", 1.25): 6.27,
    ("mobilenet_v2", 0.5): 1.97,
    ("mobilenet_v2", 1.0): 3.50,
    ("mobilenet_v2", 1.4): 6.11,
    ("mobilenet_v3_large", 0.75): 3.99,
    ("mobilenet_v3_large", 1.0): 5.48,
    ("mobilenet_v3_large_minimalistic", 1.0): 3.92,
    ("mobilenet_v3_small", 0.5): 1.59,
    ("mobilenet_v3_small", 0.75): 2.04,
    ("mobilenet_v3_small", 1.0): 2.54,
    ("mobilenet_v3_small_minimalistic", 1.0): 2.04,
    ("mobilenet_v4_conv_small", 0.5): 2.24,
    ("mobilenet_v4_conv_small", 1.0): 3.77,
    ("mobilenet_v4_conv_medium", 1.0): 9.72,
    ("mobilenet_v4_conv_large", 1.0): 32.59,
    ("mobilenet_v4_hybrid_medium", 1.0): 11.07,
    ("mobilenet_v4_hybrid_large", 1.0): 37.76,
}


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """An empty folder as KZOO_WEIGHTS, an empty cache, and no network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KZOO_WEIGHTS", str(tmp_path / "mirror"))
    monkeypatch.setattr(download, "WAITS_S", ())
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


# The table


def test_rows_are_told_apart():
    assert len({row.file for row in PUBLISHED}) == len(PUBLISHED)
    known = set(kzoo.list_models())
    for row in PUBLISHED:
        assert row.model in known
        assert row.url.startswith("https://")
        assert row.source.startswith("https://")
        assert row.license in ("Apache-2.0", "BSD-3-Clause")
        assert row.digest is None or re.fullmatch(
            "md5:[0-9a-f]{32}|sha256:[0-9a-f]{8,64}", row.digest
        )
        json.dumps(dataclasses.asdict(row))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "alpha"), MILLIONS)
def test_parameters_are_as_published(model, alpha):
    net = kzoo.create_model(model, alpha=alpha, input_shape=(64, 64, 3))
    count = sum(int(np.prod(variable.shape)) for variable in net.trainable_variables)
    assert round(count / 1e6, 2) == pytest.approx(MILLIONS[model, alpha], abs=0.0051)


def test_parameters_are_published_for_every_net_of_timm():
    assert {(row.model, row.alpha) for row in PUBLISHED if row.reader == "timm"} == set(MILLIONS)


def test_every_row_is_found_by_its_name():
    for row in PUBLISHED:
        if row.head is None:
            sides = (row.resolution, row.resolution)
            found = published(row.name, row.model, row.alpha, include_top=row.top, sides=sides)
            assert found == row


def test_torchvisions_files_have_their_hash_in_their_name():
    for row in PUBLISHED:
        if row.reader == "torchvision":
            assert row.digest.startswith(f"sha256:{row.file[-12:-4]}")


def test_names_are_those_of_keras_applications(monkeypatch):
    """keras.applications itself says which file it wants, by the URL that it would fetch."""
    asked = []

    def record(name, origin, **options):
        asked.append((origin, options.get("file_hash")))
        raise ConnectionError

    for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"):
        source = sys.modules[KERAS[name].__module__]
        monkeypatch.setattr(source.file_utils, "get_file", record)
    cases = [
        ("mobilenet_v2", alpha, top, size)
        for alpha, sizes in table.V2_TOP1.items()
        for size in sizes
        for top in (True, False)
    ]
    cases = cases[::7]  # each builds a net: 0.5 s
    cases += [
        ("mobilenet_v1", 0.25, True, 128),
        ("mobilenet_v1", 0.75, False, 192),
        ("mobilenet_v1", 1.0, True, 224),
        ("mobilenet_v3_small", 0.75, True, 224),
        ("mobilenet_v3_large", 1.0, False, 224),
    ]
    for name, alpha, top, size in cases:
        with pytest.raises(ConnectionError):
            KERAS[name](input_shape=(size, size, 3), alpha=alpha, include_top=top)
        row = published("imagenet", name, alpha, include_top=top, sides=(size, size))
        url, digest = asked[-1]
        assert url == row.url
        assert digest is None or row.digest == f"md5:{digest}"


def test_hashes_of_v3_are_those_of_keras_applications():
    source = sys.modules[KERAS["mobilenet_v3_small"].__module__]
    names = {
        (f"mobilenet_v3_{kind.split('_224_')[0]}", float(kind.split("_")[-2])): digests
        for kind, digests in source.WEIGHTS_HASHES.items()
    }
    assert names == {net: tuple(digests) for net, (_, *digests) in table.V3_FILES.items()}


# What a name means


def test_imagenet_by_size():
    find = functools.partial(published, "imagenet", "mobilenet_v2")
    assert find(1.0, sides=(160, 160)).file.endswith("_1.0_160.h5")
    assert find(1.0, sides=(160, 192)).file.endswith("_1.0_224.h5")
    assert find(1, sides=(None, None)).file.endswith("_1.0_224.h5")
    assert find(1.4, sides=(96, 96)).file.endswith("_1.4_224.h5")
    assert find(1.0, include_top=False).file.endswith("_1.0_224_no_top.h5")


MEANINGS = """
imagenet               mobilenet_v4_conv_small   1.0 224 mobilenetv4_conv_small.e2400_r224_in1k
imagenet               mobilenet_v4_conv_small   1.0 256 mobilenetv4_conv_small.e3600_r256_in1k
imagenet               mobilenet_v4_hybrid_large 1.0 224 mobilenetv4_hybrid_large.ix_e600_r384_in1k
imagenet               mobilenet_v3_small        0.5 224 mobilenetv3_small_050.lamb_in1k
imagenet:timm          mobilenet_v3_large        1.0 224 mobilenetv3_large_100.ra4_e3600_r224_in1k
imagenet:timm-tf       mobilenet_v3_large        1.0 224 tf_mobilenetv3_large_100.in1k
imagenet:torchvision   mobilenet_v2              1.0 224 mobilenet_v2-7ebf99e0
imagenet:torchvision-v1 mobilenet_v2             1.0 224 mobilenet_v2-b0353104
imagenet:keras         mobilenet_v3_small        1.0 224 weights_mobilenet_v3_small_224_1.0_float
coco                   mobilenet_v3_large        1.0 320 ssdlite320_mobilenet_v3_large_coco-a79551df
"""


@pytest.mark.parametrize("line", MEANINGS.strip().splitlines())
def test_names(line):
    name, model, alpha, side, file = line.split()
    row = published(name, model, float(alpha), sides=(int(side), int(side)))
    assert row.file.rpartition(".")[0] == file


@pytest.mark.parametrize("alpha", [0.4, 1.25])
def test_what_there_is_is_said(alpha):
    with pytest.raises(ValueError, match=r"none for mobilenet_v2 at alpha .*0.35, 0.5, 0.75, 1.0"):
        kzoo.MobileNetV2(alpha, weights="imagenet")
    with pytest.raises(ValueError, match=r"'imagenet:tim'.*Did you mean 'imagenet:timm'\?"):
        kzoo.MobileNetV2(weights="imagenet:tim")
    with pytest.raises(ValueError, match=r"none for lraspp\. There are: coco for ssdlite"):
        kzoo.LRASPP(kzoo.MobileNetV2(include_top=False), 3, weights="coco")


def test_weights_are_listed():
    rows = kzoo.list_weights("mobilenet_v3_large")
    assert {"imagenet:keras", "imagenet:torchvision-v2", "coco", "voc"} <= {r.name for r in rows}
    assert {row.head for row in kzoo.list_weights(task="segment")} == {"lraspp", "deeplabv3"}
    assert len(kzoo.list_weights()) == len(PUBLISHED)
    with pytest.raises(ValueError, match="model must be one of"):
        kzoo.list_weights("mobilenet_v5")
    with pytest.raises(ValueError, match="task must be one of"):
        kzoo.list_weights(task="pose")


# Models with weights by name

V2 = functools.partial(kzoo.MobileNetV2, 0.35, input_shape=(96, 96, 3), weights="imagenet")
V2_NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96.h5"


def test_a_folder_of_files_copied_by_hand(nowhere):
    net = settled(keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None))
    save_keras_2(net, nowhere / V2_NAME)
    model = V2()
    assert model.loaded_weights.new == ()
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("row0_conv").kernel), net.layers[1].get_weights()[0]
    )
    assert V2(classes=5).loaded_weights.new == ("head_logits",)
    whole = (nowhere / V2_NAME).read_bytes()
    (nowhere / V2_NAME).write_bytes(whole[:100_000])
    with pytest.raises(ConnectionError, match=r"cannot be read.*; .*refused"):
        V2()


def test_offline(nowhere):
    with pytest.raises(ConnectionError, match=r"(?s)no such file \(KZOO_W.*--weights none"):
        V2()


def test_traits_come_with_the_row(nowhere, monkeypatch):
    """timm's "tf" weights pad as TensorFlow does, which their tensors do not tell."""
    row = published("imagenet:timm-tf", "mobilenet_v3_small", 1.0)
    monkeypatch.setattr(named, "PUBLISHED", (row,))
    model = settled(kzoo.MobileNetV3Small(input_shape=(64, 64, 3)))
    path = nowhere / "own.weights.h5"
    model.save_weights(path)
    path.rename(nowhere / row.file)  # bytes tell the format
    built = kzoo.MobileNetV3Small(input_shape=(65, 65, 3), padding="symmetric",
                                  preprocessing="torch", weights="imagenet")  # fmt: skip
    assert not any(isinstance(x, keras.layers.ZeroPadding2D) for x in built.layers)
    assert np.ravel(built.get_layer("preprocessing").offset).tolist() == [-1.0]


# Heads


def golden_weights(golden, case: str, path: Path) -> None:
    """torchvision's names and shapes, with seeded values."""
    with np.load(golden) as arrays:
        lines = [line.split() for line in arrays[f"{case}parameters"].tolist()]
    seeded = torchvision_models.seeded
    save_safetensors({n: seeded(n, tuple(map(int, shape))) for n, *shape in lines}, path)


def row_of_file(head: str, folder: Path, monkeypatch, labels: tuple[str, ...]) -> None:
    """The published row of a head, whose file has other classes and no hash."""
    (row,) = (row for row in PUBLISHED if row.head == head)
    row = dataclasses.replace(row, digest=None, classes=len(labels))
    monkeypatch.setattr(named, "PUBLISHED", (row,))
    monkeypatch.setattr("kzoo.weights.loading.labels_of", lambda row: labels)


def columns(kernel: np.ndarray, anchors: int) -> np.ndarray:
    return np.asarray(kernel).reshape(-1, anchors, np.shape(kernel)[-1] // anchors)


def test_a_detector_keeps_the_classes_it_knows(nowhere, monkeypatch):
    known = tuple(f"class{i}" for i in range(torchvision_ssdlite.CLASSES))
    row_of_file("ssdlite", nowhere, monkeypatch, known)
    file = named.PUBLISHED[0].file
    golden = Path(torchvision_ssdlite.__file__).with_suffix(".npz")
    golden_weights(golden, "", nowhere / file)

    def detector(labels, **options):
        backbone = kzoo.MobileNetV3Large(
            input_shape=(96, 96, 3), include_top=False, reduced_tail=True, weights="coco"
        )
        return kzoo.SSDLite(backbone, len(labels), labels=labels, weights="coco", **options)

    whole = detector(known)
    assert whole.loaded_weights.new == ()
    some = detector(("new", known[2], known[0]))
    assert some.loaded_weights.classes == (known[2], known[0])
    assert some.loaded_weights.new == ()
    focal = detector((known[1],), loss="focal")  # without background
    for level, anchors in ((0, 6), (3, 6)):
        name = f"logits{level}_project"
        theirs = columns(whole.get_layer(name).kernel, anchors)
        own = columns(some.get_layer(name).kernel, anchors)
        np.testing.assert_array_equal(own[..., [0, 2, 3]], theirs[..., [0, 3, 1]])
        assert np.abs(own[..., 1] - theirs[..., 1]).max() > 0
        np.testing.assert_array_equal(
            columns(focal.get_layer(name).kernel, anchors)[..., 0], theirs[..., 2]
        )
    config = DetectConfig("cards", size=96, weights="coco")  # reduced_tail comes with it
    example = Example(Path("a.jpg"), np.float32([[0.2, 0.2, 0.6, 0.7]]), np.array([0]), (96, 96))
    dataset = BoxDataset("coco", ("new", known[1]), (example,), ())
    recipe = build_detector(config, dataset)
    np.testing.assert_array_equal(
        columns(recipe.get_layer("logits0_project").kernel, 6)[..., 2],
        columns(whole.get_layer("logits0_project").kernel, 6)[..., 2],
    )
    other = detector(("new", "newer"))
    assert set(other.loaded_weights.new) == {f"logits{i}_project" for i in range(6)}
    assert other.loaded_weights.classes == ()
    with pytest.raises(ValueError, match="labels must name the model's classes, all of them"):
        kzoo.load_weights(some, "coco", labels=known[:1])


def test_a_segmenter_keeps_the_classes_it_knows(nowhere, monkeypatch):
    with np.load(torchvision_lraspp.GOLDEN) as golden:
        cases = [name.partition("/")[0] for name in golden if name.endswith("/parameters")]
    case = next(case for case in cases if "lraspp" in case)
    known = tuple(f"class{i}" for i in range(torchvision_lraspp.CLASSES))
    row_of_file("lraspp", nowhere, monkeypatch, known)
    golden_weights(torchvision_lraspp.GOLDEN, f"{case}/", nowhere / named.PUBLISHED[0].file)
    build = functools.partial(
        kzoo.MobileNetV3Large, input_shape=(64, 64, 3), include_top=False, output_stride=16
    )
    labels = ("new", known[1])
    net = kzoo.LRASPP(build(weights="voc"), 2, weights="voc", labels=labels)
    whole = kzoo.LRASPP(build(weights="voc"), len(known), weights="voc")
    assert whole.loaded_weights.new == net.loaded_weights.new == ()
    assert net.loaded_weights.classes == (known[1],)
    for name in ("lraspp_classify_high", "lraspp_classify_low"):
        own, theirs = (np.asarray(model.get_layer(name).kernel) for model in (net, whole))
        np.testing.assert_array_equal(own[..., 1], theirs[..., 1])
    dataset = MaskDataset(labels, (), (), (), np.ones(2))
    recipe = build_segmenter(SegmentConfig("cells", size=64, weights="voc"), dataset)
    np.testing.assert_array_equal(
        np.asarray(recipe.get_layer("lraspp_classify_low").kernel)[..., 1],
        np.asarray(net.get_layer("lraspp_classify_low").kernel)[..., 1],
    )
    with pytest.raises(ValueError, match=r"has padding='same'.*with padding='symmetric'"):
        kzoo.LRASPP(build(), len(known), weights="voc")


def test_a_model_card_names_the_weights_and_their_licence():
    config = {"model": "mobilenet_v3_large", "alpha": 1.0, "size": 320, "weights": "coco"}
    assert "ssdlite320_mobilenet_v3_large_coco-a79551df.pth (BSD-3-Clause" in pretrained(config)
    for weights in ("none", "own.weights.h5"):
        assert pretrained({**config, "weights": weights}) == ""
    for head, stem in (("lraspp", "lraspp"), ("deeplabv3+", "deeplabv3")):
        found = pretrained({**config, "weights": "voc", "head": head})
        assert f"{stem}_mobilenet_v3_large-" in found


# Labels


def test_predictions_are_decoded_as_keras_does(monkeypatch, tmp_path):
    """keras.applications' own decoder, given the classes by their numbers."""
    probabilities = np.random.default_rng(0).random((3, 1000)).astype("float32")
    found = kzoo.decode_predictions(probabilities, top=3)
    assert [len(one) for one in found] == [3, 3, 3]
    for row, one in zip(probabilities, found, strict=True):
        assert [score for _, _, score in one] == sorted(row.tolist(), reverse=True)[:3]
    one_hot = np.eye(1000, dtype="float32")[[0, 281, 999]]
    assert [one[0] for one in kzoo.decode_predictions(one_hot)] == [
        ("n01440764", "tench", 1.0),
        ("n02123045", "tabby", 1.0),
        ("n15075141", "toilet_tissue", 1.0),
    ]
    with pytest.raises(ValueError, match=r"of shape \(N, 1000\)"):
        kzoo.decode_predictions(probabilities[:, :10])


def test_labels():
    assert len(kzoo.labels("imagenet")) == 1000
    coco = kzoo.labels("coco")
    assert (len(coco), coco.count("N/A"), coco[0], coco[89]) == (90, 10, "person", "toothbrush")
    assert kzoo.labels("voc")[:2] == ("background", "aeroplane")
    with pytest.raises(ValueError, match="dataset must be one of imagenet, coco, voc"):
        kzoo.labels("cifar")
    rows: tuple[PublishedWeights, ...] = kzoo.list_weights()
    sizes = {row.dataset: row.classes for row in rows}
    assert sizes == {"ImageNet-1k": 1000, "COCO 2017": 90, "COCO 2017, VOC classes": 21}


def test_preprocess_input_refuses_what_is_scaled_already():
    x = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    assert kzoo.preprocess_input(x) is x
    assert kzoo.preprocess_input(np.zeros((1, 4, 4, 3))).max() == 0  # a black image
    for scaled in (x / 255, keras.applications.mobilenet_v2.preprocess_input(x.copy())):
        with pytest.raises(ValueError, match=r"pixels in \[0, 255\]. Received: values in \["):
            kzoo.preprocess_input(scaled)
