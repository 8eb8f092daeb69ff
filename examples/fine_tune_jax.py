"""Train a MobileNet on JAX with a custom training step.

    python examples/fine_tune_jax.py [--size 96] [--steps 50]

The images are drawn by the script: stripes of two directions. Only export needs TensorFlow.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np

import kzoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--steps", type=int, default=50)
given = parser.parse_args()


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, size, size, 3) in [0, 255] and labels (N,): 0 vertical, 1 horizontal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    wave = 127 * (1 + np.sin(np.arange(given.size) / 3 + rng.uniform(0, 6, (count, 1))))
    wave = np.repeat(wave[:, :, None], given.size, axis=2)
    wave = np.where(labels[:, None, None] == 0, wave.transpose(0, 2, 1), wave)
    images = np.repeat(wave[..., None], 3, axis=-1) + rng.normal(0, 20, (count, 1, 1, 3))
    return images.clip(0, 255).astype("float32"), labels


model = kzoo.MobileNetV2(0.35, input_shape=(given.size, given.size, 3), classes=2)
optimizer = keras.optimizers.Adam(1e-3)
optimizer.build(model.trainable_variables)
loss = keras.losses.SparseCategoricalCrossentropy()


def loss_of(trainable, fixed, images, labels):
    scores, fixed = model.stateless_call(trainable, fixed, images, training=True)
    return loss(labels, scores), fixed


@jax.jit
def step(state, images, labels):
    trainable, fixed, optimizer_state = state
    gradient = jax.value_and_grad(loss_of, has_aux=True)
    (value, fixed), gradients = gradient(trainable, fixed, images, labels)
    trainable, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, trainable)
    return (trainable, fixed, optimizer_state), value


state = tuple(
    [variable.value for variable in variables]
    for variables in (
        model.trainable_variables, model.non_trainable_variables, optimizer.variables,
    )
)  # fmt: skip
for i in range(given.steps):
    state, value = step(state, *stripes(32, seed=i))
    if i % 10 == 0 or i + 1 == given.steps:
        print(f"step {i}: loss {float(value):.3f}")
for variables, values in zip(
    (model.trainable_variables, model.non_trainable_variables), state[:2], strict=True
):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
model.save("stripes.keras")  # kzoo convert stripes.keras stripes.tflite --calibration FOLDER
