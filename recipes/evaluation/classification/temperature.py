"""Temperature scaling to calibrate probabilities (https://arxiv.org/abs/1706.04599).

Logits divided by a temperature keep their order, so that no prediction changes.
"""

import keras
import numpy as np

LEAST, MOST = 0.05, 20.0  # temperatures
STEPS = 60  # of bisection: 400 / 2^60 is below float64's resolution


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (N, classes) with their logits divided by a temperature."""
    logits = np.log(np.maximum(probabilities.astype("float64"), 1e-12)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature in [.05, 20] with the least cross-entropy on these images.

    probabilities: (N, classes), at temperature 1. targets: true classes (N,).

    Cross-entropy is convex in 1 / temperature; its slope, the mean of the expected logit minus the
    logit of the true class, changes sign once.

    If all n predictions are right, the minimum is at probabilities of 1. So the mean confidence is
    limited to (n + 1) / (n + 2), by Laplace's rule of succession.
    """
    logits = np.log(np.maximum(probabilities.astype("float64"), 1e-12))
    own = logits[np.arange(len(targets)), targets]
    low, high, surest = 1 / MOST, 1 / LEAST, (len(targets) + 1) / (len(targets) + 2)
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = at_temperature(probabilities, 1 / middle)
        surer = middle > 1 and found.max(axis=1).mean() > surest
        if surer or np.mean((found * logits).sum(axis=1) - own) > 0:
            high = middle
        else:
            low = middle
    return float(1 / low)


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the logits before the layer "predictions" by a temperature, in place.

    Divides kernel and bias of `logits_layer`; raises ValueError like that.
    """
    layer = logits_layer(model)
    layer.set_weights([weights / temperature for weights in layer.get_weights()])


def logits_layer(model: keras.Model) -> keras.layers.Layer:
    """Return the layer that computes the logits: the last with weights up to "predictions".

    Raises ValueError if there is no layer "predictions", or that layer is not linear.
    """
    if "predictions" not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"{model.name} has no layer named 'predictions', in front of which a temperature "
            f"divides the logits. Its last layer is {model.layers[-1].name!r}. Give the softmax "
            "that name, or leave temperature out."
        )
    layer = model.get_layer("predictions")
    while not layer.get_weights():
        layer = layer.input._keras_history.operation
    linear = (keras.layers.Dense, keras.layers.Conv2D)
    if not isinstance(layer, linear) or layer.activation is not keras.activations.linear:
        raise ValueError(
            f"The logits come from {layer.name!r}, a {type(layer).__name__}: a temperature needs a "
            "Dense or Conv2D layer without activation there. Leave temperature out."
        )
    return layer
