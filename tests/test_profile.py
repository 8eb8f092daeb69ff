"""Parameters and MACs against keras.applications', and against layers counted by hand."""

import keras
import numpy as np
import pytest
from golden.backends import fill
from keras import layers

import kzoo

# Counted on keras.applications (keras 3.15.1) at 224 px and 1,000 classes.
#  alpha      total  trainable     folded  MACs / M
COUNTS = {
    "mobilenet_v1": (
        (0.25,   475_544,   470_072,   467_336,  41.030),
        (0.50, 1_342_536, 1_331_592, 1_326_120, 149.497),
        (0.75, 2_601_976, 2_585_560, 2_577_352, 325.400),
        (1.00, 4_253_864, 4_231_976, 4_221_032, 568.740),
    ),
    "mobilenet_v2": (
        (0.35, 1_691_208, 1_677_128, 1_670_088,  59.286),
        (0.50, 1_987_224, 1_968_680, 1_959_408,  97.132),
        (0.75, 2_663_064, 2_636_424, 2_623_104, 209.070),
        (1.00, 3_538_984, 3_504_872, 3_487_816, 300.774),
        (1.30, 5_431_048, 5_386_792, 5_364_664, 509.375),
        (1.40, 6_156_712, 6_108_776, 6_084_808, 582.196),
    ),
    "mobilenet_v3_large": (
        (0.35, 2_141_208, 2_132_216, 2_127_720,  43.888),
        (0.50, 2_702_512, 2_689_904, 2_683_600,  73.663),
        (0.75, 4_012_616, 3_993_528, 3_983_984, 154.561),
        (1.00, 5_507_432, 5_483_032, 5_470_832, 216.590),
        (1.25, 8_286_760, 8_255_784, 8_240_296, 349.905),
    ),
    "mobilenet_v3_large_minimalistic": (
        (0.35, 1_921_240, 1_912_248, 1_907_752,  41.466),
        (0.50, 2_288_256, 2_275_648, 2_269_344,  69.851),
        (0.75, 3_069_400, 3_050_312, 3_040_768, 148.803),
        (1.00, 3_948_688, 3_924_288, 3_912_088, 209.137),
        (1.25, 5_788_928, 5_757_952, 5_742_464, 340.096),
    ),
    "mobilenet_v3_small": (
        (0.35, 1_354_680, 1_350_344, 1_348_176,  15.931),
        (0.50, 1_599_720, 1_593_224, 1_589_976,  24.189),
        (0.75, 2_051_552, 2_041_872, 2_037_032,  43.399),
        (1.00, 2_554_968, 2_542_856, 2_536_800,  56.510),
        (1.25, 3_660_640, 3_645_312, 3_637_648,  87.704),
    ),
    "mobilenet_v3_small_minimalistic": (
        (0.35, 1_286_320, 1_281_984, 1_279_816,  14.497),
        (0.50, 1_451_976, 1_445_480, 1_442_232,  21.942),
        (0.75, 1_742_192, 1_732_512, 1_727_672,  40.073),
        (1.00, 2_056_848, 2_044_736, 2_038_680,  52.288),
        (1.25, 2_886_208, 2_870_880, 2_863_216,  82.287),
    ),
}  # fmt: skip
CASES = [(name, *counts) for name, lines in COUNTS.items() for counts in lines]


@pytest.mark.parametrize(("name", "alpha", "total", "trainable", "folded", "macs"), CASES)
def test_published_counts(name, alpha, total, trainable, folded, macs):
    model = kzoo.get_model(name)(alpha, input_shape=(224, 224, 3))
    found = kzoo.profile(model)
    assert (found.parameters, found.trainable, found.folded) == (total, trainable, folded)
    assert round(found.macs / 1e6, 3) == macs
    assert found.parameters == model.count_params()
    assert found.input == (224, 224, 3)


def net(*stack: keras.Layer, shape: tuple = (8, 10, 3)) -> keras.Model:
    x = image = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x, name="net")


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (layers.Conv2D(5, 3, padding="same"), 8 * 10 * 5 * 3 * 3 * 3),
        (layers.Conv2D(5, (3, 1), strides=2), 3 * 5 * 5 * 3 * 1 * 3),
        (layers.Conv2D(6, 3, groups=3), 6 * 8 * 6 * 3 * 3 * 1),
        (layers.Conv2D(5, 3, dilation_rate=2, padding="same"), 8 * 10 * 5 * 3 * 3 * 3),
        (layers.Conv2DTranspose(5, 3, strides=2), 8 * 10 * 3 * 3 * 3 * 5),
        (layers.DepthwiseConv2D(5, strides=2, padding="same"), 4 * 5 * 3 * 5 * 5),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 8 * 3 * 2 * 3 * 3),
        (layers.Dense(7), 8 * 10 * 3 * 7),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(), 0),
    ],
    ids=lambda value: value.name if isinstance(value, keras.Layer) else None,
)
def test_layers_counted_by_hand(layer, macs):
    model = net(layer)
    found = kzoo.profile(model)
    assert (found.macs, found.parameters) == (macs, model.count_params())


@pytest.mark.parametrize(
    ("stack", "folded"),
    [
        ([layers.Conv2D(5, 1, use_bias=False), layers.BatchNormalization()], 15 + 5),
        ([layers.Conv2D(5, 1), layers.BatchNormalization()], 15 + 5),
        ([layers.Conv2D(5, 1, activation="relu"), layers.BatchNormalization()], 15 + 5 + 10),
        ([layers.BatchNormalization()], 6),
    ],
)
def test_what_folding_leaves(stack, folded):
    assert kzoo.profile(net(*stack)).folded == folded


def test_a_convolution_that_is_read_twice_does_not_fold():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 1, use_bias=False)(image)
    model = keras.Model(image, layers.Add()([x, layers.BatchNormalization()(x)]))
    assert kzoo.profile(model).folded == 15 + 10


def test_sizes_left_open_are_asked_for():
    model = kzoo.MobileNetV3Small(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"any size.*input_shape=\(224, 224, 3\)"):
        kzoo.profile(model)
    assert round(kzoo.profile(model, input_shape=(224, 224, 3)).macs / 1e6, 3) == 56.510
    fixed = kzoo.MobileNetV3Small(0.5, input_shape=(64, 64, 3))
    with pytest.raises(ValueError, match=r"fit the model's own, \(64, 64, 3\).*\(96, 96, 3\)"):
        kzoo.profile(fixed, input_shape=(96, 96, 3))


def test_models_inside_models_and_layers_used_twice():
    backbone = kzoo.MobileNetV2(0.35, input_shape=(None, None, 3), include_top=False)
    image = keras.Input((64, 64, 3))
    shared = layers.Dense(7)
    features = layers.GlobalAveragePooling2D()(backbone(image, training=False))
    x = layers.Add()([shared(features), shared(features)])
    found = kzoo.profile(keras.Model(image, keras.Sequential([layers.Dense(2)])(x)))
    alone = kzoo.profile(backbone, input_shape=(64, 64, 3))
    assert found.parameters == alone.parameters + 1280 * 7 + 7 + 7 * 2 + 2
    assert found.macs == alone.macs + 2 * 1280 * 7 + 7 * 2
    assert any(layer.name == "mobilenet_v2/row0_conv" for layer in found.layers)


def test_counting_leaves_the_model_as_it_was():
    model = kzoo.MobileNetV2(0.35, input_shape=(64, 64, 3))
    before = [len(layer._outbound_nodes) for layer in model.layers], model.to_json()
    kzoo.profile(model)
    assert ([len(layer._outbound_nodes) for layer in model.layers], model.to_json()) == before


def test_a_quantized_model_multiplies_as_often_and_trains_what_folding_leaves():
    model = kzoo.MobileNetV3Small(0.35, input_shape=(32, 32, 3), classes=4)
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    quantized = kzoo.profile(kzoo.quantize(fill(model), calibration=images))
    float_ = kzoo.profile(model)
    assert (quantized.macs, quantized.trainable) == (float_.macs, float_.folded)


def test_a_frozen_model_has_nothing_to_train():
    model = kzoo.MobileNetV2(0.35, input_shape=(64, 64, 3))
    model.trainable = False
    assert (kzoo.profile(model).trainable, kzoo.profile(model).folded) == (0, 1_670_088)


def test_what_cannot_be_counted_is_named():
    class Odd(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(3,))

        def call(self, x):
            return x * self.w

    with pytest.raises(ValueError, match=r"'odd_one', a Odd. Add a rule: .*MACS\[Odd\]"):
        kzoo.profile(net(Odd(name="odd_one")))
    a, b = keras.Input((3,)), keras.Input((3,))
    two = keras.Model([a, b], layers.Add()([a, b]), name="two")
    with pytest.raises(ValueError, match=r"one input. 'two' has 2"):
        kzoo.profile(two)
    with pytest.raises(ValueError, match=r"one input. .* has 0"):
        kzoo.profile(keras.Sequential([layers.Dense(2)]))


def test_the_table_reads_row_by_row():
    lines = str(kzoo.profile(kzoo.MobileNetV3Large())).splitlines()
    assert lines[0] == "mobilenet_v3_large, 224 x 224 x 3: 5,483,032 trainable parameters"
    assert lines[1].split() == ["output", "parameters", "folded", "MACs", "/", "M"]
    assert lines[2].split() == ["row0", "112", "x", "112", "x", "16", "496", "448", "5.419"]
    assert lines[-1].split() == ["total", "5,507,432", "5,470,832", "216.590"]
    assert len(lines) == 2 + 17 + 2  # two lines of heading, 17 rows, the head, the total
    layer = kzoo.profile(kzoo.MobileNetV3Large()).layers[1]
    assert str(layer) == "row0_conv (Conv2D): 432 parameters, 5,419,008 MACs"
