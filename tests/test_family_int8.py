"""MobileNetV1 and V4 in int8, by the mechanisms that V2 and V3 have."""

import keras
import pytest
from conftest import settled

import kzoo
from kzoo import tflite
from kzoo.backbones import mobilenet_v1, mobilenet_v4
from kzoo.backbones.rows import Head

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow converts", allow_module_level=True)


def first_v1(alpha, **options):
    return kzoo.build("first_v1", mobilenet_v1.ROWS[:6], Head(), alpha, **options)


def first_v4(alpha, **options):
    head = Head(256, "relu", norm=True)
    return kzoo.build("first_v4", mobilenet_v4.CONV_SMALL[:11], head, alpha, **options)


@pytest.mark.slow
@pytest.mark.parametrize("builder", [first_v1, first_v4])
def test_int8_agrees_with_float(classifier, unseen, builder, tmp_path):
    """The first rows: without shortcuts, random deep nets tell noise apart, not images."""
    model, (images, labels) = classifier(builder), unseen
    file = tflite.convert(model, tmp_path / "model.tflite", calibration=images[:64])
    compared = tflite.compare(model, file, images[64:], labels=labels[64:])
    assert compared.accuracy[0] > 0.9
    assert compared.agreement > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("builder", [kzoo.MobileNetV1, kzoo.MobileNetV4ConvSmall])
def test_int8_is_one_partition(classifier, unseen, builder, tmp_path):
    model = classifier(builder)
    file = tflite.convert(model, tmp_path / "model.tflite", calibration=unseen[0][:64])
    found = tflite.audit(file)
    assert not found.float_ops
    assert found.partitions == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "builder"),
    [
        (kzoo.SSDLite, kzoo.MobileNetV1),
        (kzoo.LRASPP, kzoo.MobileNetV4ConvSmall),
    ],
)
def test_heads_in_int8_are_one_partition(unseen, head, builder, tmp_path):
    keras.utils.set_random_seed(0)
    backbone = builder(0.35, input_shape=(64, 64, 3), include_top=False)
    model = settled(head(backbone, 3), unseen[0][:64])
    file = tflite.convert(model, tmp_path / "model.tflite", calibration=unseen[0][:32])
    found = tflite.audit(file)
    assert not found.float_ops
    assert found.partitions == 1
