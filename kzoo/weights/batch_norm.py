"""Batch normalization of pretrained models: freezing, and recalibration of missing statistics.

Keras 3 passes `training=True` of an outer model to nested ones: `backbone(x, training=False)` has
no effect inside a model in training (keras#20285). Only `trainable = False` on the batch norm
itself keeps its statistics. So pretrained batch norms must be frozen, or need valid statistics to
train on from.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kzoo.arguments import is_whole, require
from kzoo.preprocessing import check_range

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
CHUNK = 8  # images per forward pass: the inputs of all batch norms are in memory at once


class MissingStatisticsWarning(UserWarning):
    """A weight file holds no batch norm statistics: its batch norms were folded into kernels."""


def freeze_batch_norm(model: keras.Model) -> None:
    """Set `trainable = False` on every batch norm of a model, those of nested models included.

    Their statistics, gamma and beta then do not change in training, and they normalize as in
    inference. Call it after unfreezing other layers (`model.trainable = True` unfreezes batch norms
    too) and before compile().
    """
    for norm in batch_norms(model):
        norm.trainable = False


def recalibrate_batch_norm(
    model: keras.Model, images: Any, *, batch_size: int = 32, steps: int | None = None
) -> None:
    """Set every batch norm's statistics to the mean and variance of its input, in place.

    Gamma and beta compensate: outputs in inference stay the same up to rounding. Call it before
    training batch norms that were loaded without statistics (in a .tflite file batch norms are
    folded away, and loading sets mean 0, variance 1), so that training starts from the same
    function.

    model: functional or sequential, possibly with nested models.
    images: model inputs, an array (N, H, W, C) or batches of it: a tf.data.Dataset, a PyDataset, a
        DataLoader or a generator. Labels in (images, labels) are ignored. A few hundred images are
        enough.
    batch_size: for an array.
    steps: number of batches to use; None uses all.

    Raises ValueError if there are no images, for images outside the model's input range (pixels in
    [0, 1] of a model for [0, 255]), and for batch norms that cannot be reached (inside subclassed
    models and layers) or have no gamma or beta.
    """
    require("batch_size", batch_size, is_whole(batch_size) and batch_size >= 1, "at least 1")
    fits = steps is None or (is_whole(steps) and steps >= 1)
    require("steps", steps, fits, "None or a whole number >= 1")
    probe = Probe(model)
    found = {id(norm) for norm in probe.norms()}
    for norm in batch_norms(model):
        if id(norm) not in found:
            raise ValueError(
                f"The batch norm {norm.name!r} lies inside a subclassed model or layer, where its "
                "input cannot be read. Build the model with keras.Model(inputs, outputs)."
            )
        if not (norm.scale and norm.center):
            raise ValueError(
                f"The batch norm {norm.name!r} has no gamma or no beta, so it cannot compensate "
                "for "
                "other statistics. Pass the part of the model whose batch norms have both."
            )
    moments: dict[int, Moments] = {}
    low, high = np.inf, -np.inf
    for batch in batches(images, batch_size, steps):
        shape = model.inputs[0].shape
        fits = len(batch) > 0 and batch.ndim == len(shape)
        require("images", batch.shape, fits, f"batches of the model's input, {shape}")
        low, high = min(low, float(batch.min())), max(high, float(batch.max()))
        size = min(CHUNK, len(batch))
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            # Padded with the first image to one size: TensorFlow and JAX compile for each size.
            filled = np.concatenate([piece, np.repeat(batch[:1], size - len(piece), axis=0)])
            for norm, values in probe.inputs_of_norms([filled]):
                moments.setdefault(id(norm), Moments()).add(values[: len(piece)], norm.axis)
    if not moments and found:
        raise ValueError("images is empty: pass a few hundred images, or batches of them.")
    if low < high:
        check_range(model, low, high)
    for norm in probe.norms():
        move(norm, moments[id(norm)])


def normalize_kernels(model: keras.Model) -> None:
    """Rescale each output channel of kernels before batch norms to He's scale, in place.

    The root mean square of a channel's weights becomes sqrt(2 / fan-in); the batch norm's
    statistics and gamma compensate: outputs in inference, and with frozen batch norms, stay the
    same up to rounding.

    Optimizers such as Adam change every weight by about the learning rate per step. If batch norms
    were folded into kernels (weights of a .tflite file), channels differ by orders of magnitude:
    ImageNet's V3-Small has 7e-4 to 24, so a rate of 4e-4 overwrites some channels in one step and
    leaves others unchanged.

    Only kernels that a single batch norm reads, without an activation between, are changed.
    Channels of zeros stay as they are.
    """
    ends = {id(tensor) for tensor in model.outputs}
    for norm in batch_norms(model):
        layer = norm.input._keras_history.operation
        called_once = len(layer._outbound_nodes) == len(norm._inbound_nodes) == 1
        alone = called_once and id(norm.input) not in ends
        if not alone or not isinstance(layer, CONVOLUTIONS) or not norm.scale:
            continue
        if layer.activation is not keras.activations.linear:
            continue
        kernel: np.ndarray
        kernel, *bias = (value.astype("float64") for value in layer.get_weights())
        rms = np.sqrt(np.mean(kernel**2, axis=(0, 1), keepdims=True))
        fan_in = kernel.shape[0] * kernel.shape[1]
        if not isinstance(layer, keras.layers.DepthwiseConv2D):
            rms = np.sqrt(np.mean(rms**2, axis=2, keepdims=True))
            fan_in *= kernel.shape[2]
        times = np.where(rms > 0, rms * np.sqrt(fan_in / 2), 1.0)
        layer.set_weights([kernel / times, *(one / times.ravel() for one in bias)])
        own = dict(zip((v.name for v in norm.weights), norm.get_weights(), strict=True))
        channel, variance = times.ravel(), np.float64(own["moving_variance"])
        smaller = variance / channel**2
        slope = np.sqrt((smaller + norm.epsilon) / (variance + norm.epsilon))
        own["gamma"] = own["gamma"] * channel * slope
        own["moving_mean"], own["moving_variance"] = own["moving_mean"] / channel, smaller
        norm.set_weights([own[v.name] for v in norm.weights])


def move(norm: keras.layers.BatchNormalization, moments: "Moments") -> None:
    """Set the statistics of `norm`, and gamma and beta such that it computes what it did."""
    gamma, beta, old_mean, old_variance = (np.float64(value) for value in norm.get_weights())
    # Rounded to float32 as stored, so that gamma and beta compensate exactly these values.
    mean = moments.mean.astype("float32")
    variance = moments.variance.astype("float32")
    slope = gamma / np.sqrt(old_variance + norm.epsilon)
    gamma = slope * np.sqrt(variance.astype("float64") + norm.epsilon)
    norm.set_weights([gamma, beta + slope * (mean - old_mean), mean, variance])


class Moments:
    """Running mean and variance per channel over several arrays, in float64."""

    def __init__(self) -> None:
        self.count: int = 0
        self.mean: np.ndarray = np.zeros(())
        self.variance: np.ndarray = np.zeros(())

    def add(self, values: np.ndarray, axis: int) -> None:
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        count = values.size // values.shape[axis]
        mean = values.mean(others, dtype="float64")
        variance = values.var(others, dtype="float64")
        share = count / (self.count + count)
        apart = mean - self.mean
        self.variance = self.variance * (1 - share) + variance * share
        self.variance = self.variance + share * (1 - share) * apart**2
        self.mean = self.mean + share * apart
        self.count += count


class Probe:
    """Computes the inputs of all batch norms of a model in inference mode.

    The tensors of a nested model belong to another graph, so it has a probe of its own, which is
    fed with its inputs in the outer model.
    """

    def __init__(self, model: keras.Model) -> None:
        graph = functional(model)
        if not getattr(graph, "operations", None):
            raise ValueError(
                f"{model.name!r} is a subclassed model, or not built: its graph cannot be read. "
                "Pass a functional or sequential model."
            )
        self.readers: list[keras.layers.BatchNormalization | Probe] = []
        self.spans: list[slice] = []
        tensors: list[Any] = []
        for op, node in calls(graph):
            if isinstance(op, keras.Model) and batch_norms(op):
                self.readers.append(Probe(op))
            elif isinstance(op, keras.layers.BatchNormalization):
                self.readers.append(op)
            else:
                continue
            read = node.input_tensors
            self.spans.append(slice(len(tensors), len(tensors) + len(read)))
            tensors += read
        inputs = graph.inputs if len(graph.inputs) > 1 else graph.inputs[0]
        self.model = keras.Model(inputs, tensors) if tensors else None

    def norms(self) -> list[keras.layers.BatchNormalization]:
        """Return every batch norm once."""
        found: dict[int, keras.layers.BatchNormalization] = {}
        for reader in self.readers:
            inner = reader.norms() if isinstance(reader, Probe) else [reader]
            found |= {id(norm): norm for norm in inner}
        return list(found.values())

    def inputs_of_norms(
        self, inputs: list[np.ndarray]
    ) -> Iterator[tuple[keras.layers.BatchNormalization, np.ndarray]]:
        """Yield (batch norm, its input) for each call of each batch norm."""
        if self.model is None:
            return
        given = inputs if len(inputs) > 1 else inputs[0]
        found = keras.tree.flatten(self.model.predict_on_batch(given))  # a list or a single array
        values = [np.asarray(value) for value in found]
        for reader, span in zip(self.readers, self.spans, strict=True):
            if isinstance(reader, Probe):
                yield from reader.inputs_of_norms(values[span])
            else:
                yield reader, values[span][0].astype("float32")


def calls(graph: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (operation, node) of each call between a functional model's inputs and outputs."""
    seen, stack = {id(tensor) for tensor in graph.inputs}, list(graph.outputs)
    nodes: set[int] = set()
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        op, number, _ = tensor._keras_history
        node = op._inbound_nodes[number]
        stack += node.input_tensors
        if id(node) not in nodes:
            nodes.add(id(node))
            yield op, node


def functional(model: Any) -> Any:
    """Return the functional model inside a built `keras.Sequential`; anything else unchanged."""
    return getattr(model, "_functional", None) or model


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return all batch norms of a model, nested ones included."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def batches(images: Any, batch_size: int, steps: int | None) -> Iterator[np.ndarray]:
    """Yield batches of images as NumPy arrays, from an array or an iterable of batches."""
    found: Iterable[Any]
    if hasattr(images, "shape"):
        found = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    elif isinstance(images, keras.utils.PyDataset):
        found = (images[i] for i in range(len(images)))
    else:
        found = images
    for number, batch in enumerate(found):
        if number == steps:
            return
        first = batch[0] if isinstance(batch, tuple | list) else batch
        yield np.asarray(keras.ops.convert_to_numpy(first))
