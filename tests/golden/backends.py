"""What TensorFlow computes, for the other backends to match (tests/test_models.py).

KERAS_BACKEND=tensorflow python tests/golden/backends.py takes 15 s and writes backends.npz beside
itself (made with keras 3.15.1, tensorflow 2.21). The weights are made from a seed and their names.
"""

from pathlib import Path

import keras
import numpy as np

import kzoo

GOLDEN = Path(__file__).with_suffix(".npz")
SEED, CLASSES, SIZE = 7, 40, (75, 64)
CASES = {
    "v2": (kzoo.MobileNetV2, 0.5, {}),
    "v3_large": (kzoo.MobileNetV3Large, 0.75, {"output_stride": 16}),
    "v3_small": (kzoo.MobileNetV3Small, 1.0, {"preprocessing": "torch"}),
    "v3_small_minimalistic": (kzoo.MobileNetV3Small, 1.25, {"minimalistic": True}),
}


def pixels() -> np.ndarray:
    """Two images (2, H, W, 3) with values in [0, 255]."""
    return np.random.default_rng(SEED).integers(0, 256, (2, *SIZE, 3)).astype("float32")


def fill(model: keras.Model, seed: int = SEED) -> keras.Model:
    """Weights that keep activations of order 1, batch statistics far from 0 and 1."""
    for layer in model.layers:
        values = []
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        for weight in layer.weights:
            rng = np.random.default_rng([seed, *f"{layer.name}/{weight.name}".encode()])
            shape = tuple(weight.shape)  # TensorFlow's and PyTorch's own types differ when empty
            if weight.name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.5, 1.5, shape))
            else:
                window = shape[: 2 if depthwise else -1]  # () for biases, offsets and means
                fan_in = np.prod(window) if window else 100
                values.append(rng.normal(size=shape) * np.sqrt(1.5 / fan_in))
        if values:
            layer.set_weights(values)
    return model


def answers(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (2, classes) and every 20th channel of P4 (2, H / 16, W / 16, C / 20)."""
    build, alpha, arguments = CASES[case]
    model = build(
        alpha,
        input_shape=(*SIZE, 3),
        classes=CLASSES,
        classifier_activation=None,
        **arguments,
    )
    both = keras.Model(model.input, [model.output, kzoo.pyramid(fill(model))["P4"]])
    logits, features = both.predict_on_batch(pixels())
    return logits, features[..., ::20]


if __name__ == "__main__":
    golden = {}
    for name in CASES:
        golden[f"{name}/logits"], golden[f"{name}/P4"] = answers(name)
        print(name, {key: float(np.abs(y).mean()) for key, y in golden.items() if name in key})
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes")
