"""The sensitivity table, on a net of which it is known where the noise is."""

import keras
import numpy as np
from keras import layers
from qat_nets import images, randomized

from kzoo.qat import sensitivity


def test_the_layer_that_int8_cannot_hold_comes_first():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="preprocessing")(image)
    x = layers.Conv2D(8, 3, name="fine")(x)
    x = layers.Activation("hard_swish", name="swish")(x)
    x = layers.Conv2D(8, 1, name="wide")(x)
    x = layers.Conv2D(8, 3, use_bias=False, name="last")(x)
    model = randomized(keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x)))
    # One channel of "wide" is 300 times the others and then ignored: its levels are lost to them.
    kernel, bias = model.get_layer("wide").get_weights()
    kernel[..., 0] *= 300
    model.get_layer("wide").set_weights([kernel, bias])
    last = np.array(model.get_layer("last").kernel)
    last[:, :, 0] = 0
    model.get_layer("last").kernel.assign(last)

    x = images(16, size=16)
    found = sensitivity(model, calibration=x, images=x[:8])
    assert next(iter(found.decibels)) == "wide"
    assert found.decibels["wide"] < 20 < found.decibels["last"]
    assert set(found.decibels) == {"image", "fine", "swish", "wide", "last", "pool"}
    assert str(found).startswith("wide costs most in int8: quantized alone it leaves ")
    assert "\nwide " in found.table(1)
    assert found.table(1).count(" dB\n") == 1

    kept = sensitivity(model, calibration=x, images=x[:8], keep_float=["wide"])
    assert "wide" not in kept.decibels


def test_a_model_that_says_the_same_of_all_images():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, name="first")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="dead")(x))
    model = keras.Model(image, layers.Dense(4, name="last")(x))
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([-np.abs(kernel), bias])  # ReLU lets nothing through
    last = model.get_layer("last").get_weights()[0]
    model.get_layer("last").set_weights([last, np.arange(4.0)])
    x = images(16, size=16)
    found = sensitivity(model, calibration=x, images=x[:8])
    assert found.constant
    assert str(found).startswith("This says nothing of the layers: the model gives the same")
    assert not np.isnan([*found.decibels.values()]).any()
