"""Fine-tune a MobileNet in plain Keras with tf.data, then write a verified int8 file.

    python examples/fine_tune_keras.py PHOTOS [--size 224] [--epochs 5]

PHOTOS has one folder per class. Runs on TensorFlow; fine_tune_jax.py and fine_tune_torch.py show
the other backends with custom training loops.
"""

import argparse

import keras
import numpy as np

import kzoo
import kzoo.tflite

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("photos")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--weights", help='"imagenet", or the path of a weights file')
parser.add_argument("--out", default="model.tflite")
given = parser.parse_args()

train, val = keras.utils.image_dataset_from_directory(
    given.photos, image_size=(given.size, given.size), batch_size=32,
    validation_split=0.2, subset="both", seed=0,
)  # fmt: skip
labels = train.class_names

backbone = kzoo.MobileNetV3Small(
    input_shape=(given.size, given.size, 3), include_top=False, pooling="avg",
    weights=given.weights,
)  # fmt: skip
x = keras.layers.Dropout(0.2)(backbone.output)
logits = keras.layers.Dense(len(labels))(x)
model = keras.Model(backbone.input, keras.layers.Activation("softmax", dtype="float32")(logits))

# 1. Train the new layer on a frozen backbone.
backbone.trainable = given.weights is None
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, epochs=given.epochs, verbose=2)

# 2. Train the whole model. Pretrained batch norms keep their statistics.
backbone.trainable = True
if given.weights:
    kzoo.freeze_batch_norm(model)
model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, epochs=given.epochs, verbose=2)

# 3. int8, calibrated on training images and compared on validation images.
calibration = np.concatenate([images.numpy() for images, _ in train.take(4)])
int8 = kzoo.quantize(model, calibration=calibration)
file = kzoo.tflite.convert(int8, given.out, labels=labels)
images = np.concatenate([images.numpy() for images, _ in val])
targets = np.concatenate([targets.numpy() for _, targets in val])
print(kzoo.tflite.compare(model, file, images, labels=targets))
