"""tensorflow-model-optimization for models of `to_tf_keras`: quantization, pruning, clustering.

tfmot has no quantization rules for V3's Multiply and for Rescaling, which are added here.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from kzoo.interop.tf_keras import neighbour

# Layers without weights for which tfmot 0.8 has no QuantizeConfig: their output is quantized.
OUTPUT_ONLY = (
    "Average", "Dot", "Maximum", "Minimum", "Multiply", "Rescaling", "Resizing", "Subtract"
)  # fmt: skip

KERNELS = ("Conv2D", "Dense")  # layers to prune and cluster
BATCH = 16
LEGACY = "TF_USE_LEGACY_KERAS"
LEAST_RANGE = 1e-3  # width of the range of a tensor that is always zero


def import_tfmot() -> Any:
    """Import tensorflow_model_optimization without its side effect on tf.keras.

    It sets TF_USE_LEGACY_KERAS, which makes tf.keras tf-keras and breaks the import of keras-cv.
    """
    legacy = os.environ.get(LEGACY)
    if legacy is None:
        neighbour("tensorflow", "tfmot").keras.version()  # loads tf.keras before it is set
    tfmot = neighbour("tensorflow_model_optimization", "tfmot")
    if legacy is None:
        os.environ.pop(LEGACY, None)
    return tfmot


def quantize_model(net: Any, *, calibration: Any = None) -> Any:
    """Return a model of `to_tf_keras` quantized by tfmot, V3's hard-swish and gates included.

    calibration: images in the model's input range, an array (N, H, W, C) or a list of batches, to
        initialize the ranges of activations; weights of dead channels are raised too (see
        `lift_dead_channels`). Without images tfmot's ranges start at [-6, 6] and move by a
        thousandth of the difference in each training step, too slowly for a short run.

    Train the result with tf-keras and convert it with `kzoo.tflite.convert`. A Rescaling at its
    input becomes two float operators in the file. Raises tfmot's errors for unsupported layers.
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
        # x + 3 and relu6 are fused into one operator unless a fake-quant lies between them.
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
    """Return a copy of `net` whose Conv2D and Dense layers are pruned by a tfmot schedule.

    Train it with tfmot's UpdatePruningStep as a callback, then call strip_pruning. Depthwise
    convolutions, which have few weights, are not pruned.
    """
    tfmot = import_tfmot()
    return on_kernels(
        copied(net),
        lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule),
    )


def cluster_model(net: Any, clusters: int) -> Any:
    """Return a copy of `net` whose Conv2D and Dense layers have `clusters` different weights each.

    Train it, then call strip_clustering. Centroids are initialized at equal steps from the smallest
    to the largest weight and are trained. Before that, channels are scaled to the same largest
    weight, which a batch norm after the layer compensates (see `level_channels`).
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
    """Return `net` with its Conv2D and Dense layers wrapped by `wrap`."""

    def wrapped(layer: Any) -> Any:
        return wrap(layer) if type(layer).__name__ in KERNELS else layer

    return neighbour("tf_keras", "tfmot").models.clone_model(net, clone_function=wrapped)


def level_channels(net: Any) -> None:
    """Scale layers before a batch norm so that each channel's largest weight is 1, in place.

    The norm's statistics compensate: outputs stay the same. A pretrained V3-Small with 32 clusters
    per layer then classifies 77 % of photos correctly before training, instead of 13 %.
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
    """Set the ranges of a tfmot model to the minimum and maximum of each tensor on `images`.

    net: the float model. Ranges of weights are set as in a training step.
    """
    for layer in quantized.layers:
        for weight, quantizer, variables in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=variables)
    rounded: list[tuple[Any, Any, Any]] = []  # (variable of the minimum, of the maximum, tensor)
    for layer in quantized.layers:
        own = {w.name.split("/")[-1].split(":")[0]: w for w in layer.weights}
        wrapped = getattr(layer, "layer", None)
        ends = ("output_min", "activation_min") if wrapped else ("_min",)  # "_min" of the input
        for key, low in own.items():
            if key.endswith(ends):
                tensor = net.get_layer(wrapped.name).output if wrapped else net.inputs[0]
                rounded.append((low, own[f"{key.removesuffix('min')}max"], tensor))
    seen = ranges_of(net, [tensor for _, _, tensor in rounded], images)
    for (least, largest, _), (a, b) in zip(rounded, seen, strict=True):
        least.assign(a)
        largest.assign(b)


def ranges_of(net: Any, tensors: Sequence[Any], images: Any) -> list[tuple[float, float]]:
    """Return the minimum and maximum of each tensor of a float model; ranges include zero."""
    if not tensors:
        return []
    taps = neighbour("tf_keras", "tfmot").Model(net.input, list(tensors))
    batches: Iterable[Any] = images
    if isinstance(images, np.ndarray):
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    low, high = np.zeros(len(tensors)), np.zeros(len(tensors))
    for batch in batches:
        seen = taps(np.asarray(batch, np.float32), training=False)
        seen = seen if isinstance(seen, list) else [seen]  # a single tensor is not in a list
        low = np.minimum(low, [float(np.min(x)) for x in seen])
        high = np.maximum(high, [float(np.max(x)) for x in seen])
    high = np.maximum(high, low + LEAST_RANGE)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def lift_dead_channels(net: Any, images: Any) -> None:
    """Raise one weight of channels with almost no weights, so that their bias fits int32, in place.

    A bias has steps of input scale x weight scale. In one gate of a pretrained V3-Small 71 of 96
    biases are more than 2^31 such steps, since the channels' weights are 1e-6. The raised weight
    makes the bias at most 2^24 steps, as in `kzoo.quantize`.
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
