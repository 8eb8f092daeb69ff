"""The vocabulary of tables: nets that others drew, the width rule, and what a typo does."""

import dataclasses
import math

import keras
import pytest

import kzoo
from kzoo.backbones.mobilenet_v2 import ROWS as V2
from kzoo.backbones.mobilenet_v2 import TABLE
from kzoo.backbones.mobilenet_v3 import LARGE
from kzoo.backbones.rows import Bneck, Conv, Expand, Head, Net, SqueezeExcite


def bnecks(rows, **columns):
    """The table with other values in the columns of its bottlenecks."""
    return tuple(
        dataclasses.replace(row, **columns) if isinstance(row, Bneck) else row for row in rows
    )


def relu(rows):
    return tuple(dataclasses.replace(row, act="relu") for row in rows)


def trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def test_v2_that_expands_in_its_first_row_too():
    """A walk-through of V2 counts 3,505,960 and wonders why it is not 3,504,872: this is why."""
    model = kzoo.build("v2_always_expanding", bnecks(V2, expand_always=True), Head())
    assert trainable(model) == 3_505_960
    assert trainable(kzoo.MobileNetV2()) == 3_504_872


def test_v3_with_bare_squeeze_excite():
    """A walk-through of V3-Large: gates of exactly width // 4 without biases, always expanding."""
    bare = SqueezeExcite(round=False, bias=False)
    rows = tuple(
        dataclasses.replace(row, se=bare) if getattr(row, "se", None) else row
        for row in bnecks(LARGE, expand_always=True)
    )
    model = kzoo.build("v3_bare_gates", rows, Head(1280, "hard_swish"))
    assert trainable(model) == 5_476_416
    assert trainable(kzoo.MobileNetV3Large()) == 5_483_032


def test_v2_with_relu_and_logits():
    model = kzoo.MobileNetV2(activation="relu", dropout_rate=0.2, classifier_activation=None)
    assert trainable(model) == 3_504_872
    activations = {layer.get_config().get("activation") for layer in model.layers}
    assert activations == {None, "linear", "relu"}
    assert model.get_layer("head_dropout").rate == 0.2


def test_v2_with_projected_shortcuts_and_a_flat_head():
    """An annotated V2: ReLU after sums, 1 x 1 shortcuts where shapes differ, no mean at last."""
    rows = bnecks(V2[:-1], expand_always=True, shortcut="projection", sum_act="relu")
    rows = (*relu(rows), Conv(1, 1280, act=None, norm=False))
    model = kzoo.build("v2_annotated", rows, Head(flatten=True))
    assert trainable(model) == 65_021_240
    projected = [layer.name for layer in model.layers if layer.name.endswith("_shortcut")]
    changes = ["row1", "row2", "row4", "row7", "row11", "row14", "row17"]
    assert projected == [f"{row}_shortcut" for row in changes]
    levels = {level: tuple(x.shape[1:]) for level, x in kzoo.pyramid(model).items()}
    assert levels["P1"] == (112, 112, 16)  # a shortcut's stride is not counted twice
    assert levels["P5"] == (7, 7, 1280)
    with pytest.raises(ValueError, match=r"input_shape must be fixed.*flattens"):
        kzoo.build("v2_annotated", rows, Head(flatten=True), input_shape=(None, None, 3))


@pytest.mark.parametrize(("alpha", "depth", "millions"), [(1.1, 1.2, 4.52), (1.2, 1.4, 5.83)])
def test_timms_deeper_v2_are_tables(alpha, depth, millions):
    """mobilenetv2_110d and _120d; parameters as in timm's results-imagenet.csv."""
    ends = TABLE[0], TABLE[-1]  # are not repeated, as neither stem nor last row is widened
    rows = [Bneck(3, t, c, s if i == 0 else 1) for line in TABLE for t, c, n, s in [line]
            for i in range(n if line in ends else math.ceil(n * depth))]  # fmt: skip
    stem, last = Conv(3, 32, 2, scale="never"), Conv(1, 1280, scale="never")
    model = kzoo.build("v2_deep", (stem, *rows, last), Head(), alpha, input_shape=(64, 64, 3))
    assert round(trainable(model) / 1e6, 2) == millions


@pytest.mark.parametrize("alpha", [1, 0.056, 0.279, 0.5559, 0.56, 1.11])
def test_widths_of_v2_are_those_of_keras_applications(alpha):
    """Alphas where cutting `out * alpha` to a whole number before rounding makes a difference."""
    same = {"input_shape": (32, 32, 3), "include_top": False, "weights": None}
    ours = kzoo.MobileNetV2(alpha, **same)
    theirs = keras.applications.MobileNetV2(alpha=alpha, **same)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]


@pytest.mark.parametrize("alpha", [0.05, 0.279, 0.56, 1.11])
@pytest.mark.parametrize(
    ("build", "reference"),
    [
        (kzoo.MobileNetV3Large, keras.applications.MobileNetV3Large),
        (kzoo.MobileNetV3Small, keras.applications.MobileNetV3Small),
    ],
)
def test_widths_of_v3_are_those_of_keras_applications(build, reference, alpha):
    same = {"input_shape": (32, 32, 3), "weights": None, "classes": 2}
    ours, theirs = build(alpha, **same), reference(alpha=alpha, **same)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(1, 8), (8.8, 8), (8.9, 16), (12, 16), (17.7, 16), (17.8, 24), (20, 24)],
)
def test_width_rule_by_hand(channels, rounded):
    assert Net().round(channels) == rounded


@pytest.mark.parametrize("row", [Conv, Bneck, Expand, SqueezeExcite, Head])
def test_a_typo_in_a_table_fails_at_once(row):
    with pytest.raises(TypeError, match="unexpected keyword argument 'stirde'"):
        row(stirde=2)


def test_rows_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LARGE[0].kernel = 5


def test_layer_names_point_at_the_table():
    model = kzoo.MobileNetV3Large(input_shape=(64, 64, 3))
    names = {layer.name for layer in model.layers}
    for i, row in enumerate(LARGE):
        assert f"row{i}_out" in names, row
        assert (f"row{i}_se_gate" in names) == bool(getattr(row, "se", None)), row
        assert (f"row{i}_expand" in names) == (getattr(row, "expand", 1) != 1), row
    assert {"image", "preprocessing", "head_pool", "head_logits", "predictions"} <= names
    assert model.get_layer("row13_expand_act").output.shape[1:] == (4, 4, 672)  # SSDLite's tap
