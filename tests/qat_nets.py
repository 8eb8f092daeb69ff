"""Small nets with activations of order one, and images for them, for the tests of kzoo.qat."""

import keras
import numpy as np

import kzoo

SIZE = 64
NETS = {
    "v2": (kzoo.MobileNetV2, 0.35),
    "v3-large": (kzoo.MobileNetV3Large, 0.75),
    "v3-small": (kzoo.MobileNetV3Small, 0.5),
}


def images(n: int = 16, *, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """(N, H, W, 3) uint8: coloured gradients with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, size)
    slopes = rng.normal(0, 60, (2, n, 1, 1, 3))
    smooth = slopes[0] * ramp[:, None, None] + slopes[1] * ramp[None, :, None]
    noise = rng.normal(0, 25, (n, size, size, 3)) + rng.uniform(60, 190, (n, 1, 1, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def randomized(model: keras.Model, *, seed: int = 0) -> keras.Model:
    """The model with weights that keep activations at order one, batch norms unlike identities.

    A freshly built MobileNet has activations of 1e-9, of which no int8 means anything.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            layer.gamma.assign(rng.uniform(0.6, 1.4, n))
            layer.beta.assign(rng.normal(0, 0.3, n))
            layer.moving_mean.assign(rng.normal(0, 0.1, n))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, n))
        elif hasattr(layer, "kernel"):
            shape = layer.kernel.shape
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = np.prod(shape[:-2] if depthwise else shape[:-1])
            layer.kernel.assign(rng.normal(0, np.sqrt(1.6 / fan_in), shape))
            if layer.use_bias:
                layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape))
    return model


def net(name: str, **options) -> keras.Model:
    """One of `NETS`, small, with seven classes and logits."""
    build, alpha = NETS[name]
    options = {
        "classes": 7,
        "classifier_activation": None,
        "input_shape": (SIZE, SIZE, 3),
    } | options
    return randomized(build(alpha, **options))
