"""tensorflow-model-optimization on what `to_tf_keras` gives: quantization, pruning, clustering.

tfmot knows neither V3's Multiply nor any Rescaling; what it does with the rest is its own.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from kzoo.interop.tf_keras import neighbour

# Layers for which tfmot 0.8 has no QuantizeConfig and which compute: their output is rounded.
OUTPUT_ONLY = (
    "Average", "Dot", "Maximum", "Minimum", "Multiply", "Rescaling", "Resizing", "Subtract"
)  # fmt: skip

KERNELS = ("Conv2D", "Dense")  # what is pruned and clustered
BATCH = 16
LEGACY = "TF_USE_LEGACY_KERAS"
LEAST_RANGE = 1e-3  # of a tensor that is zero everywhere


def import_tfmot() -> Any:
    """tensorflow_model_optimization, without what it does to tf.keras.

    It sets TF_USE_LEGACY_KERAS, with which tf.keras becomes tf-keras and keras-cv fails to import.
    """
    legacy = os.environ.get(LEGACY)
    if legacy is None:
        neighbour("tensorflow", "tfmot").keras.version()  # chosen now, while that is not set
    tfmot = neighbour("tensorflow_model_optimization", "tfmot")
    if legacy is None:
        os.environ.pop(LEGACY, None)
    return tfmot


def quantize_model(net: Any, *, calibration: Any = None) -> Any:
    """tfmot's `quantize_model` for what `to_tf_keras` gives, V3's hard-swish and gates included.

    calibration: images in the net's input range, an array (N, H, W, C) or a list of batches, from
        which the ranges of activations are taken; channels that are dead are lifted. Without
        them ranges start at [-6, 6] and move by a thousandth of the way each step of training, as
        tfmot has it: a short run ends before they have arrived.

    The result trains with tf-keras, `kzoo.tflite.convert` converts it. A Rescaling at its front
    stays two float operators in the file. Raises what tfmot raises for layers it does not know.
    """
    tfmot = import_tfmot()
    tf_keras = neighbour("tf_keras", "tfmot")
    configs = neighbour(
        "tensorflow_model_optimization.python.core.quantization.keras.default_8bit."
        "default_8bit_quantize_configs",
        "tfmot",
    )

    def annotate(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind not in OUTPUT_ONLY:
            return tfmot.quantization.keras.quantize_annotate_layer(layer)
        # x + 3 before a relu6 is one operator with it: rounding between them would part the two.
        own = configs.NoOpQuantizeConfig() if feeds_a_relu(layer) else None
        return tfmot.quantization.keras.quantize_annotate_layer(
            layer, own or configs.Default8BitOutputQuantizeConfig()
        )

    if calibration is not None:
        net, given = tf_keras.models.clone_model(net), net
        net.set_weights(given.get_weights())
        lift_dead_channels(net, calibration)
    annotated = tf_keras.models.clone_model(net, clone_function=annotate)
    annotated.set_weights(net.get_weights())
    with tfmot.quantization.keras.quantize_scope():
        quantized = tfmot.quantization.keras.quantize_apply(annotated)
    if calibration is not None:
        calibrate(quantized, net, calibration)
    return quantized


def prune_model(net: Any, schedule: Any) -> Any:
    """`net`, whose Conv2D and Dense layers lose their smallest weights as tfmot's schedule says.

    Train it with tfmot's UpdatePruningStep as a callback, then strip_pruning. Depthwise
    convolutions hold few weights, and keep them.
    """
    tfmot = import_tfmot()
    return on_kernels(
        copied(net),
        lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule),
    )


def cluster_model(net: Any, clusters: int) -> Any:
    """`net`, whose Conv2D and Dense layers share so many weights each; strip_clustering afterwards.

    They start at even steps from the smallest weight to the largest and learn. Before, a batch norm
    behind a layer takes over how far its channels' weights reach, which then all do equally.
    """
    tfmot = import_tfmot()
    even = tfmot.clustering.keras.CentroidInitialization.LINEAR
    copy = copied(net)
    level_channels(copy)
    return on_kernels(
        copy,
        lambda layer: tfmot.clustering.keras.cluster_weights(
            layer, number_of_clusters=clusters, cluster_centroids_init=even
        ),
    )


def copied(net: Any) -> Any:
    copy = neighbour("tf_keras", "tfmot").models.clone_model(net)
    copy.set_weights(net.get_weights())
    return copy


def on_kernels(net: Any, wrap: Callable[[Any], Any]) -> Any:
    """`net` with its convolutions and dense layers, but for depthwise ones, wrapped."""

    def wrapped(layer: Any) -> Any:
        return wrap(layer) if type(layer).__name__ in KERNELS else layer

    return neighbour("tf_keras", "tfmot").models.clone_model(net, clone_function=wrapped)


def level_channels(net: Any) -> None:
    """Scale what a batch norm reads so that each channel's largest weight is 1, in place.

    The norm's statistics take it back: outputs and its training stay. Of a pretrained V3-Small with
    32 shared weights a layer 77 % of photos are then right before any training, 13 % without.
    """
    for layer in net.layers:
        readers = [node.outbound_layer for node in layer._outbound_nodes]
        after = [type(reader).__name__ for reader in readers]
        if type(layer).__name__ not in KERNELS or after != ["BatchNormalization"]:
            continue
        norm, (kernel, *bias) = readers[0], layer.get_weights()
        variance = norm.moving_variance.numpy() + norm.epsilon
        reach = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
        reach = np.where(reach > 0, reach, 1)
        reach = np.minimum(reach, np.sqrt(variance / norm.epsilon))  # no variance is below 0
        layer.set_weights([value / reach for value in (kernel, *bias)])
        norm.moving_mean.assign(norm.moving_mean.numpy() / reach)
        norm.moving_variance.assign(variance / reach**2 - norm.epsilon)


def feeds_a_relu(layer: Any) -> bool:
    readers = [node.outbound_layer for node in layer._outbound_nodes]
    return [type(reader).__name__ for reader in readers] == ["ReLU"]


def calibrate(quantized: Any, net: Any, images: Any) -> None:
    """Give tfmot's net the least and the largest value of each tensor that it rounds.

    `net` is the float one. Weights get the ranges that a step of training gives them.
    """
    for layer in quantized.layers:
        for weight, quantizer, variables in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=variables)
    rounded: list[tuple[Any, Any, Any]] = []  # (variable of the least, of the largest, tensor)
    for layer in quantized.layers:
        own = {w.name.split("/")[-1].split(":")[0]: w for w in layer.weights}
        wrapped = getattr(layer, "layer", None)
        ends = ("output_min", "activation_min") if wrapped else ("_min",)  # that of the input
        for key, low in own.items():
            if key.endswith(ends):
                tensor = net.get_layer(wrapped.name).output if wrapped else net.inputs[0]
                rounded.append((low, own[f"{key.removesuffix('min')}max"], tensor))
    seen = ranges_of(net, [tensor for _, _, tensor in rounded], images)
    for (least, largest, _), (a, b) in zip(rounded, seen, strict=True):
        least.assign(a)
        largest.assign(b)


def ranges_of(net: Any, tensors: Sequence[Any], images: Any) -> list[tuple[float, float]]:
    """The least and the largest value of each tensor of a float net; zero is in every range."""
    if not tensors:
        return []
    taps = neighbour("tf_keras", "tfmot").Model(net.input, list(tensors))
    batches: Iterable[Any] = images
    if isinstance(images, np.ndarray):
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    low, high = np.zeros(len(tensors)), np.zeros(len(tensors))
    for batch in batches:
        seen = taps(np.asarray(batch, np.float32), training=False)
        seen = seen if isinstance(seen, list) else [seen]  # of one tensor
        low = np.minimum(low, [float(np.min(x)) for x in seen])
        high = np.maximum(high, [float(np.max(x)) for x in seen])
    high = np.maximum(high, low + LEAST_RANGE)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def lift_dead_channels(net: Any, images: Any) -> None:
    """Give channels of next to no weights one that their int32 bias can do with, in place.

    A bias counts in steps of input scale x weight scale. Of a pretrained V3-Small 71 of 96 biases
    of a gate are more than 2^31 such steps: their weights are 1e-6. A weight of .2 % of the bias,
    times the largest input, makes it at most 2^24 steps (as `kzoo.quantize` has it).
    """
    biased = [layer for layer in net.layers if type(layer).__name__ in KERNELS and layer.use_bias]
    for layer, (a, b) in zip(
        biased, ranges_of(net, [layer.input for layer in biased], images), strict=True
    ):
        kernel, bias = layer.get_weights()
        flat = kernel.reshape(-1, len(bias))
        least = 127 * np.abs(bias) / ((b - a) / 255 * 2**24)
        flat[0] = np.where(np.abs(flat).max(axis=0) < least, least, flat[0])
        layer.set_weights([kernel, bias])
