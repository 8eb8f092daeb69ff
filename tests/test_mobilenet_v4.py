"""MobileNetV4 against timm, MobileNetV1 against keras.applications."""

import keras
import numpy as np
import pytest
from golden import timm_models
from golden.backends import fill
from test_models import assert_same, no_random_start, run  # noqa: F401  (a fixture)
from test_weights import save_safetensors

import kzoo
from kzoo.backbones.profile import Profile

# timm 1.0.31: sum(p.numel() for p in timm.create_model(name).parameters())
PARAMETERS = {
    "mobilenetv4_conv_small": 3_774_024,
    "mobilenetv4_conv_medium": 9_715_512,
    "mobilenetv4_conv_large": 32_590_864,
    "mobilenetv4_hybrid_medium": 11_074_648,
    "mobilenetv4_hybrid_large": 37_764_624,
}
BOTH = ["mobilenetv4_conv_small", "mobilenetv4_hybrid_medium"]  # enough for JAX and PyTorch


def builder(case: str):
    return kzoo.get_model(case.replace("mobilenetv4", "mobilenet_v4"))


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_and_macs_are_timms(case):
    found, theirs = counts(case)
    assert found.trainable == PARAMETERS[case]
    assert found.macs == theirs


def counts(case: str) -> tuple[Profile, int]:
    """The costs of a net with 1,000 classes, and the MACs that timm's has."""
    profile = kzoo.profile(builder(case)(classes=1000))
    # What timm computes by tensors alone: a scale of channels, products of attention.
    alone = [
        layer.macs
        for layer in profile.layers
        if layer.kind == "Dot"
        or (layer.kind == "DepthwiseConv2D" and layer.name.endswith(("_scale", "_out")))
    ]
    with np.load(timm_models.GOLDEN) as golden:
        classifier = 1280 * (1000 - timm_models.CLASSES)
        return profile, int(golden[f"{case}/macs"]) + classifier + sum(alone)


def from_timm(case: str, size: tuple[int, int], folder) -> tuple[np.ndarray, np.ndarray]:
    """What a net says that has read timm's weights as its own files hold them, and what timm's."""
    with np.load(timm_models.GOLDEN) as golden:
        expected = golden[f"{case}/{size[0]}x{size[1]}"]
        lines = [line.split() for line in golden[f"{case}/parameters"].tolist()]
    arrays = {name: timm_models.seeded(name, tuple(map(int, shape))) for name, *shape in lines}
    save_safetensors(arrays, folder / "model.safetensors")
    model = builder(case)(
        input_shape=(*size, 3),
        classes=timm_models.CLASSES,
        classifier_activation=None,
        weights=folder / "model.safetensors",
    )
    assert model.loaded_weights.new == ()
    return run(model, timm_models.pixels(*size)[None].astype("float32")), expected


def same_as_timm(case: str, size: tuple[int, int], folder) -> None:
    found, expected = from_timm(case, size, folder)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.backend
@pytest.mark.parametrize("case", BOTH)
def test_outputs_are_timms(case, tmp_path):
    same_as_timm(case, timm_models.SIZES[1], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(timm_models.CASES) - set(BOTH)))
def test_outputs_of_the_larger_are_timms(case, tmp_path):
    same_as_timm(case, timm_models.SIZES[0], tmp_path)


def test_attention_needs_a_fixed_size():
    with pytest.raises(ValueError, match="needs a feature map of a fixed size: give the model"):
        kzoo.MobileNetV4HybridMedium(input_shape=(None, None, 3))


def test_pyramids():
    for case in BOTH:
        levels = kzoo.pyramid(builder(case)(input_shape=(64, 96, 3), include_top=False))
        sides = {name: tuple(level.shape[1:3]) for name, level in levels.items()}
        assert sides == {f"P{i}": (64 >> i, 96 >> i) for i in range(1, 6)}


@pytest.mark.backend
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75, 1.0])
def test_v1_is_keras_applications(alpha):
    ours = kzoo.MobileNetV1(alpha, input_shape=(64, 64, 3), classes=20, preprocessing=None)
    theirs = keras.applications.MobileNet((64, 64, 3), alpha, weights=None, classes=20)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    values = fill(ours).get_weights()
    values[-2] = values[-2][None, None]  # theirs classifies by a 1 x 1 convolution
    theirs.set_weights(values)
    assert_same(run(ours, x), run(theirs, x), exact=False)
