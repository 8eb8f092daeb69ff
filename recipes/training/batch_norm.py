"""Batch norms of pretrained layers, given the statistics of the images to come."""

import keras
import numpy as np


def settle_norms(net: keras.Model, images: np.ndarray) -> None:
    """Give batch norms the statistics of `images` (N, H, W, 3), and leave what they compute.

    Gamma and beta make up for it. Weights from a .tflite file have norms folded away, mean 0 and
    variance 1, which hold nothing back: trained with those frozen, in front of a head with norms of
    its own, the features of a V3-Small grew to 1e10, and int8 could not hold them. Statistics that
    are true let the norms be trained.
    """
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    taps = keras.Model(net.inputs, [norm.input for norm in norms])
    for norm, values in zip(norms, taps.predict_on_batch(images.astype("float32")), strict=True):
        values = np.asarray(values, np.float64)
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        gamma, beta, old_mean, old_variance = map(np.float64, norm.get_weights())
        slope = gamma / np.sqrt(old_variance + norm.epsilon)
        gamma = slope * np.sqrt(variance + norm.epsilon)
        norm.set_weights([gamma, beta + slope * (mean - old_mean), mean, variance])
