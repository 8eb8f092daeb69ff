"""A custom head on any backbone, with two outputs, quantized and exported.

    python examples/custom_head.py [--size 96]

The model is a flat functional model, so that quantize() and convert() reach every layer.
"""

import argparse

import keras
import numpy as np

import kzoo
import kzoo.tflite

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=96)
given = parser.parse_args()

backbone = kzoo.MobileNetV2(0.35, input_shape=(given.size, given.size, 3), include_top=False)
features = keras.layers.GlobalAveragePooling2D(name="pool")(kzoo.pyramid(backbone)["P4"])
answers = {
    "kind": keras.layers.Dense(3, name="kind")(features),  # logits of three classes
    "age": keras.layers.Dense(1, name="age")(features),  # a number
}
model = keras.Model(backbone.input, answers)
model.compile(
    keras.optimizers.Adam(1e-3),
    {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "age": "mse"},
)

rng = np.random.default_rng(0)
kinds, ages = rng.integers(0, 3, 128), rng.uniform(0, 1, (128, 1)).astype("float32")
images = rng.uniform(0, 100, (128, given.size, given.size, 3)).astype("float32")
images[np.arange(128), :, :, kinds] += 100
images += 50 * ages[:, :, None, None]
model.fit(images, {"kind": kinds, "age": ages}, epochs=2, verbose=2)

int8 = kzoo.quantize(model, calibration=images)
file = kzoo.tflite.convert(int8, "kinds.tflite")
print(kzoo.tflite.compare(model, file, images[:32]))
