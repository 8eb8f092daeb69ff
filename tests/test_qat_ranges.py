"""Ranges by the outputs: what they gain; and what is said of calibration images."""

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, randomized

import kzoo
from kzoo.quantization import variants as variants_
from kzoo.quantization.calibration import calibration_remarks
from kzoo.quantization.graph import Linear
from kzoo.quantization.quantize import planned
from kzoo.quantization.simulate import Run, chunk_size
from kzoo.quantization.variants import Together, Variant, exact_outputs, outputs


def decibels(model: keras.Model, other: keras.Model, x: np.ndarray) -> float:
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(x)) for m in (model, other))
    return 10 * np.log10(np.square(y - y.mean(0)).sum() / np.square(y - z).sum())


def clipped_behind() -> keras.Model:
    """A net that clips what its first layer's hard-swish gives: least squares keeps it all."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255, name="preprocessing")(image)
    x = layers.Conv2D(8, 1, activation="hard_swish", name="first")(x)
    x = layers.DepthwiseConv2D(3, activation="relu6", name="depthwise")(x)
    model = randomized(keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x)))
    kernel, bias = model.get_layer("depthwise").get_weights()
    model.get_layer("depthwise").set_weights([kernel * 6, bias])
    return model


@pytest.mark.backend
def test_ranges_by_the_outputs_are_no_worse():
    model, x = clipped_behind(), images(32, size=16)
    seen = images(16, size=16, seed=1).astype("float32")
    lines = []
    least_squares = kzoo.quantize(model, calibration=x, ranges="mse", equalization=False)
    found = kzoo.quantize(model, calibration=x, equalization=False, progress=lines.append)
    assert decibels(model, found, seen) > decibels(model, least_squares, seen) - 0.2
    assert lines[0] == "There are 32 calibration images: 100 or more give steady ranges."
    assert "activations make most of the noise: " in lines[1]
    assert lines[2].startswith("ranges narrowed: ")


@pytest.mark.backend
def test_ranges_that_only_the_first_images_like_are_not_taken():
    """Six dim images choose; on the bright ones after them the narrow ranges cut values off."""
    model, dim, bright = clipped_behind(), images(6, size=16) // 8, images(26, size=16)
    x = np.concatenate([dim, bright])
    least_squares = kzoo.quantize(model, calibration=x, ranges="mse")
    found = kzoo.quantize(model, calibration=x)
    seen = images(16, size=16, seed=1).astype("float32")
    assert decibels(model, found, seen) > decibels(model, least_squares, seen) - 0.2


@pytest.mark.parametrize(
    ("x", "remarks"),
    [
        (images(100, size=8), []),
        (images(12, size=8), ["There are 12 calibration images"]),
        (np.tile(images(25, size=8), (4, 1, 1, 1)), ["Only 25 of 100 calibration images differ"]),
        (
            np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8),
            ["The calibration images are alike: their brightness spreads by 2."],
        ),
    ],
    ids=["a fair draw", "few", "copies", "alike"],
)
def test_remarks_on_calibration_images(x, remarks):
    found = calibration_remarks(iter([x[:50], x[50:]] if len(x) > 50 else [x]))
    assert len(found) == len(remarks)
    for line, start in zip(found, remarks, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": "best"}, r"must be \"mse\", \"minmax\", \"output\" or a share"),
        ({"equalization": "most"}, "must be True, False or \"all\". Received: equalization='most'"),
    ],
)
def test_choices_that_there_are_not(options, message):
    with pytest.raises(ValueError, match=message):
        kzoo.quantize(clipped_behind(), calibration=images(2, size=16), **options)


def test_variants_computed_together_are_those_computed_alone():
    """Between the two pools, of one range, stands a pool whose output in float nobody kept."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255, name="preprocessing")(image)
    x = layers.Conv2D(4, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="second")(x)
    x = layers.MaxPooling2D(name="most")(x)
    x = layers.AveragePooling2D(2, name="mean")(x)
    x = layers.Conv2D(4, 1, activation="relu", name="third")(x)
    model = randomized(keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x)))
    graph, plan = planned(model, images(8, size=16), "split", (), "mse", False)
    run, some = Run(graph, plan), images(2, size=16)
    by_key = {
        key: [name for name in plan.fake_quants if plan.grids[name] == key] for key in plan.ranges
    }
    assert any({"mean"} < set(names) for names in by_key.values())
    variants = [Variant(names) for names in by_key.values()]
    exact = exact_outputs(run, some, plan.fake_quants)
    assert "most" not in exact
    for variant, found in zip(variants, Together(run, variants, some, exact).ends(), strict=True):
        if any(isinstance(graph.ops[name], Linear) for name in variant.quantized):
            continue  # `run` rounds its weights too
        alone = run(some, variant.quantized)
        for name, value in found.items():
            np.testing.assert_allclose(value, alone[name], atol=1e-5)


def test_variants_are_computed_as_they_are_taken(monkeypatch):
    """All at once, those of a segmenter's full-size logits took 1.2 GB."""
    image = keras.Input((16, 16, 3))
    model = randomized(keras.Model(image, layers.Conv2D(4, 3, name="only")(image)))
    graph, plan = planned(model, images(8, size=16), "split", (), "mse", False)
    run, some, passes = Run(graph, plan), images(2, size=16), []
    monkeypatch.setattr(variants_, "MOST_IMAGES", 2)  # of one variant
    compute = Together.ends
    monkeypatch.setattr(Together, "ends", lambda self: passes.append(self) or compute(self))
    found = outputs(run, [Variant(["only"])] * 3, some, run(some))
    next(found)
    assert len(passes) == 1
    assert len(list(found)) == 2
    assert len(passes) == 3


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((9, 224, 224, 3), 24),
        ((9, 96, 96, 3), 24),
        ((9, 320, 320, 3), 11),  # 24 * (224 / 320)^2 = 11.76
        ((9, 1600, 1600, 3), 1),
        ((9, 40), 24),
    ],
)
def test_fewer_large_images_are_computed_at_a_time(shape, count):
    assert chunk_size(24, shape) == count
