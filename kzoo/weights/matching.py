"""`assign`: match a file's weights with a model's layers, by name or in graph order."""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import layers

from kzoo.weights.batch_norm import MissingStatisticsWarning
from kzoo.weights.checkpoint import ROW, Checkpoint, Unit
from kzoo.weights.mismatch import kernel_apart, kinds, layer_apart, mismatch
from kzoo.weights.targets import MOST_TOP, Target, fits, of_classes, row_number, targets


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The result of loading weights.

    source: the file. loaded: layers that got weights. new: layers that are still as initialized.
    classes: class names whose weights a detector's or segmenter's head took over.
    """

    source: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        new = f"; new: {', '.join(self.new)}" if self.new else ""
        classes = f"; classes kept: {', '.join(self.classes)}" if self.classes else ""
        return f"{len(self.loaded)} layers loaded from {self.source}{new}{classes}"


Pairs = list[tuple[Target, Unit]]


def assign(
    model: keras.Model, checkpoint: Checkpoint, labels: Sequence[str] | None = None
) -> Loaded:
    """Match a file's units with the model's layers, check all shapes, and assign the weights.

    Returns which layers were loaded. kzoo's own files are matched by layer name, others in graph
    order. Layers stay new if their width is the number of classes and that differs; and so does the
    whole head if the file has none, or one of another kind (classifier, detector, segmenter, or a
    detector with other layers).

    Raises ValueError for all other differences. Warns with `MissingStatisticsWarning` if the file
    has no statistics for batch norms of the model, which were folded into its kernels.
    """
    rows, head = targets(model)
    match = pairs_by_name if checkpoint.by_name else pairs_in_order
    pairs = match(model, checkpoint, rows, head)
    kept: tuple[str, ...] = ()
    loads_head = len(pairs) > len(rows)
    if labels is not None and checkpoint.labels and checkpoint.head and loads_head:
        whole = list(zip(rows + head, checkpoint.units, strict=False))
        pairs = with_classes(pairs, whole, checkpoint.labels, tuple(labels))
        kept = tuple(label for label in labels if label in checkpoint.labels)
    for variable, value in [v for pair in pairs for v in values(*pair, checkpoint.norm_epsilon)]:
        variable.assign(value)
    folded = sum(target.norm is not None and unit.norm is None for target, unit in pairs)
    if folded:
        warnings.warn(
            f"{checkpoint.source!r} has no statistics for {folded} batch norms of {model.name!r}: "
            "training them from mean 0 and variance 1 destroys the weights. Before you train, call "
            "kzoo.recalibrate_batch_norm(model, images), or keep them as they are with "
            "kzoo.freeze_batch_norm(model). For inference nothing is needed.",
            MissingStatisticsWarning,
            stacklevel=2,
        )
    loaded = tuple(target.layer.name for target, _ in pairs)
    new = tuple(t.layer.name for t in rows + head if t.layer.name not in loaded)
    return Loaded(checkpoint.source, loaded, new, kept)


def pairs_in_order(
    model: keras.Model, checkpoint: Checkpoint, rows: list[Target], all_heads: list[Target]
) -> Pairs:
    body, top = checkpoint.units[: len(rows)], checkpoint.units[len(rows) :]
    classifies = is_classifier(target.layer.name for target in all_heads)
    if checkpoint.head and (classifies or other_head(checkpoint, all_heads)):
        body, top = checkpoint.units[: -checkpoint.head], ()
    # Units do not tell a head's 1x1 convolutions from dense layers: the model's layers decide.
    more = len(top) > MOST_TOP and (bool(all_heads) or not all(map(is_dense, top)))
    head = all_heads if classifies or more else []
    wanted = rows + head if top else rows[: len(rows) - lacks_last_row(checkpoint, rows, body)]
    units = body + top if head or more else body
    if head and top and len(units) == len(wanted):
        units = (*units[:-1], fit_classes(units[-1], wanted[-1].shape))
    if [unit.kernel.shape for unit in units] != [target.shape for target in wanted]:
        if not (head and top and same_but_classes(units, wanted)):
            raise ValueError(mismatch(model, checkpoint, kernel_apart(wanted, units)))
        kept = [i for i, target in enumerate(wanted) if not of_classes(target)]
        wanted, units = [wanted[i] for i in kept], tuple(units[i] for i in kept)
    return list(zip(wanted, units, strict=True))


def lacks_last_row(checkpoint: Checkpoint, rows: list[Target], body: tuple[Unit, ...]) -> int:
    """Return the number of layers of the last row, if a detector's or segmenter's file lacks it.

    Their backbones may end without the row that only widens features for a classifier. Else 0.
    """
    missing = {row_number(target.layer.name) for target in rows[len(body) :]}
    alone = missing == {row_number(rows[-1].layer.name)}
    return len(rows) - len(body) if checkpoint.head and alone else 0


def other_head(checkpoint: Checkpoint, head: list[Target]) -> bool:
    """Return whether a file's head has other layers than the model's, whatever their widths.

    For example 1x1 predictors instead of depthwise separable ones.
    """
    found = [unit.kernel.shape for unit in checkpoint.units[-checkpoint.head :]]
    return kinds(found) != kinds([target.shape for target in head])


def is_dense(unit: Unit) -> bool:
    """Return whether a unit may be a dense layer: a 1x1 kernel, not depthwise, without norm."""
    return unit.kernel.shape[:2] == (1, 1) and unit.kernel.shape[3] > 1 and unit.norm is None


def pairs_by_name(
    model: keras.Model, checkpoint: Checkpoint, rows: list[Target], head: list[Target]
) -> Pairs:
    file = {unit.name: unit for unit in checkpoint.units}
    names = {name for target in rows + head for name in target.names}
    top, own = head_names(file), head_names(names)
    end = last_row(file, names)
    wanted = [target for target in rows if row_number(target.layer.name) <= end]
    given = {name for name in file.keys() - top if row_number(name) <= end}
    if top and own and is_classifier(top) == is_classifier(own):
        wanted, given = wanted + head, given | top
    apart = layer_apart(wanted, {name: unit for name, unit in file.items() if name in given})
    if apart:
        raise ValueError(mismatch(model, checkpoint, apart))
    pairs = [(target, with_norm(target, file)) for target in wanted]
    return [(target, unit) for target, unit in pairs if target.shape == unit.kernel.shape]


def last_row(file: Iterable[str], model: Iterable[str]) -> int:
    """Return the number of the last row to compare.

    Segmenters omit the row that only widens features for a classifier: it may be missing in the
    model, or in the file, in which case it stays new.
    """
    last = [max(map(row_number, names)) for names in (file, model)]
    top, own = head_names(file), head_names(model)
    may_differ = not is_classifier(own) or (not own and not is_classifier(top))
    return min(last) if may_differ else max(last)


def head_names(names: Iterable[str]) -> set[str]:
    return {name for name in names if not ROW.match(name)}


def is_classifier(head: Iterable[str]) -> bool:
    """Return whether all head layers are a classifier's, or there are none."""
    return all(name.startswith("head_") for name in head)


def with_norm(target: Target, file: dict[str, Unit]) -> Unit:
    unit = file[target.layer.name]
    return dataclasses.replace(unit, norm=file[target.norm.name].norm) if target.norm else unit


def fit_classes(unit: Unit, shape: tuple[int, ...]) -> Unit:
    """Return the unit without the background class, the first of TF-slim's 1,001 classes."""
    if (unit.kernel.shape[-1], shape[-1]) != (1001, 1000):
        return unit
    bias = None if unit.bias is None else unit.bias[1:]
    return dataclasses.replace(unit, kernel=unit.kernel[..., 1:], bias=bias)


def with_classes(
    pairs: Pairs, whole: Pairs, known: tuple[str, ...], labels: tuple[str, ...]
) -> Pairs:
    """Return the pairs, in which layers of class width take only classes that both have by name.

    whole: pairs of all layers of the model with the file's.
    """
    rest = [(target, unit) for target, unit in pairs if not of_classes(target)]
    if not set(known) & set(labels):
        return rest
    wide = [(target, unit) for target, unit in whole if of_classes(target)]
    return rest + [(t, with_columns(t, unit, known, labels)) for t, unit in wide]


def with_columns(
    target: Target, unit: Unit, known: tuple[str, ...], labels: tuple[str, ...]
) -> Unit:
    """Return a unit with the target's classes: weights from the file where it has the class name.

    Other classes keep the target's weights. In a detector's head each anchor has a column for each
    class, preceded by one for background if scores are a softmax.
    """
    background = unit.kernel.shape[-1] % len(known) > 0
    anchors = unit.kernel.shape[-1] // (len(known) + background)
    own_background = target.shape[-1] // anchors - len(labels)
    if own_background not in (0, 1):
        raise ValueError(
            f"labels must name the model's classes, all of them. Received: {len(labels)} labels "
            f"for {target.layer.name!r} with {target.shape[-1] // anchors} classes or, with "
            f"background, {target.shape[-1] // anchors - 1}."
        )
    columns = [(known.index(x) + background, labels.index(x) + own_background)
               for x in labels if x in known]  # fmt: skip
    if background and own_background:
        columns.append((0, 0))
    theirs, own = zip(*columns, strict=True)

    def merged(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        result = old.reshape(*old.shape[:-1], anchors, -1).copy()
        result[..., own] = new.reshape(*new.shape[:-1], anchors, -1)[..., theirs]
        return result.reshape(old.shape)

    kernel, bias = (np.asarray(keras.ops.convert_to_numpy(w)) for w in target.layer.weights)
    return dataclasses.replace(
        unit, kernel=merged(kernel, unit.kernel), bias=merged(bias, np.asarray(unit.bias))
    )


def same_but_classes(units: tuple[Unit, ...], wanted: list[Target]) -> bool:
    """Return whether all shapes are equal except for the number of classes."""
    return len(units) == len(wanted) and all(
        fits(unit, target) for unit, target in zip(units, wanted, strict=True)
    )


def values(
    target: Target, unit: Unit, epsilon: float | None
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Return (variable, value) pairs with which the target computes what the unit does.

    epsilon: of the unit's batch normalization; None if it is the target's. Another epsilon is
        compensated in gamma.
    """
    layer, norm = target.layer, target.norm
    per_channel = layer is norm or isinstance(layer, layers.DepthwiseConv2D)
    width = unit.kernel.shape[2 if per_channel else 3]
    bias = np.zeros(width, "float32") if unit.bias is None else unit.bias
    result = []
    if layer is not norm:
        result.append((layer.kernel, unit.kernel.reshape(layer.kernel.shape)))
        if layer.use_bias:
            result.append((layer.bias, bias))
        elif norm is None and bias.any():
            raise ValueError(
                f"{unit.name!r} has a bias, and {layer.name!r} has none to load it into."
            )
    if unit.norm and norm is None:
        raise ValueError(f"{unit.name!r} is normalized, and {layer.name!r} is not.")
    if norm is not None:
        one = np.ones(width, "float32")
        # A batch norm that was folded gets mean 0, variance 1 and the bias as beta, no epsilon.
        gamma, beta, mean, variance = unit.norm or (one, bias, 0 * one, one)
        theirs = 0.0 if not unit.norm else norm.epsilon if epsilon is None else epsilon
        if theirs != norm.epsilon:
            ratio = (variance.astype("float64") + norm.epsilon) / (variance + theirs)
            gamma = gamma * np.sqrt(ratio)
        variables = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        result += list(zip(variables, (gamma, beta, mean, variance), strict=True))
    return result
