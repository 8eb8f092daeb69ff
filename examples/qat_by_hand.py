"""Quantization-aware training by hand: calibrate, look at the noise, train, convert, compare.

    python examples/qat_by_hand.py [--size 96] [--epochs 3]

The images are drawn by the script. Any backend; the last step needs TensorFlow.
"""

import argparse

import keras
import numpy as np

import kzoo
import kzoo.tflite
from kzoo.quantization.sensitivity import sensitivity

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--images", type=int, default=512)
given = parser.parse_args()

rng = np.random.default_rng(0)
labels = rng.integers(0, 4, given.images)
images = rng.normal(100, 30, (given.images, given.size, given.size, 3))
for corner in range(4):  # the label is the bright corner
    y, x = (slice(0, given.size // 2) if k else slice(given.size // 2, None) for k in
            (corner & 1, corner & 2))  # fmt: skip
    images[labels == corner, y, x] += 60
images = images.clip(0, 255).astype("float32")

model = kzoo.MobileNetV3Small(
    0.5, input_shape=(given.size, given.size, 3), classes=4, norm_momentum=0.8
)
model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, epochs=given.epochs, verbose=2)

# Calibrate only, and list the layers that cost most.
int8 = kzoo.quantize(model, calibration=images[:128])
print(sensitivity(model, calibration=images[:64], images=images[64:96]))

# The float model teaches its int8 copy; labels are not needed.
student = kzoo.distill(int8, model)
student.compile(keras.optimizers.Adam(3e-5))
student.fit(images, epochs=1, batch_size=32, verbose=2)
int8.save("corners-int8.keras")  # loads in any program that has imported kzoo

file = kzoo.tflite.convert(int8, "corners.tflite", labels=["00", "01", "10", "11"])
print(kzoo.tflite.compare(model, file, images[:64], labels=labels[:64]))
print(kzoo.tflite.audit(file))
