"""Error messages for weights that do not fit: the first difference, and a similar model."""

import functools
from collections.abc import Sequence

import keras

from kzoo.registry import get_model, list_models
from kzoo.weights.checkpoint import ROW, Checkpoint, Unit
from kzoo.weights.targets import MOST_TOP, Target, fits, row_number, targets


def mismatch(model: keras.Model, checkpoint: Checkpoint, apart: str) -> str:
    """Return the error message: the first difference `apart`, and what the file looks like."""
    return f"{checkpoint.source!r} does not fit {model.name!r}: {apart}. {looks_like(checkpoint)}"


def kernel_apart(wanted: list[Target], units: tuple[Unit, ...]) -> str:
    """Return the first difference between two sequences of kernels, in words."""
    differ = [
        i for i, (t, u) in enumerate(zip(wanted, units, strict=False)) if t.shape != u.kernel.shape
    ]
    i = differ[0] if differ else min(len(wanted), len(units))
    has = (
        f"{units[i].name!r} of shape {units[i].kernel.shape}" if i < len(units) else "nothing more"
    )
    wants = (
        f"{wanted[i].layer.name!r} of shape {wanted[i].shape}"
        if i < len(wanted)
        else "nothing more"
    )
    return f"kernel {i} is {has} in the file and {wants} in the model"


def layer_apart(wanted: list[Target], given: dict[str, Unit]) -> str | None:
    """Return the first difference between layers by name, in words; None if all match."""
    for target in wanted:
        for name in target.names:
            if name not in given:
                return f"the model's layer {name!r} is not in the file"
        unit = given[target.layer.name]
        if not fits(unit, target):
            return (
                f"layer {unit.name!r} is of shape {unit.kernel.shape} in the file and "
                f"{target.shape} in the model"
            )
    more = given.keys() - {name for target in wanted for name in target.names}
    return f"the file's layer {min(more)!r} is not in the model" if more else None


Shape = tuple[int, ...]


@functools.cache
def shapes(model_name: str, alpha: float) -> dict[str, Shape]:
    """Return the kernel shapes of a model of the zoo by layer, in graph order."""
    rows, head = targets(get_model(model_name)(alpha))
    return {target.layer.name: target.shape for target in rows + head}


def kinds(found: Sequence[Shape]) -> list[tuple[int, int, bool]]:
    """Return the properties of kernels that do not depend on alpha: (H, W, is depthwise)."""
    return [(h, w, last == 1) for h, w, _, last in found]


def depth(found: Sequence[Shape]) -> int:
    """Return the sum of the channels of the depthwise kernels, which grows with alpha."""
    return sum(channels for _, _, channels, last in found if last == 1)


def common(checkpoint: Checkpoint, plain: dict[str, Shape]) -> dict[str, Shape]:
    """Return the file's kernel shapes by a net's layer names; empty if the layers differ."""
    if not checkpoint.by_name:
        found = [unit.kernel.shape for unit in checkpoint.units]
        near = abs(len(found) - len(plain)) <= MOST_TOP
        return dict(zip(plain, found, strict=False)) if near else {}
    file = {unit.name: unit for unit in checkpoint.units}
    rows = {name for name in plain if ROW.match(name)}
    last = max(map(row_number, file))
    more = {name for name, unit in file.items() if ROW.match(name) and not unit.norm} - rows
    lacks = {name for name in rows - file.keys() if row_number(name) <= last}
    if more or lacks:
        return {}
    return {name: file[name].kernel.shape for name in plain if name in file}


def looks_like(checkpoint: Checkpoint) -> str:
    """Return a sentence that says which model of the zoo, at which alpha, a file could be of."""
    for name in list_models():
        plain = shapes(name, 1.0)
        found = common(checkpoint, plain)
        own = [plain[layer] for layer in found]
        if not found or kinds(list(found.values())) != kinds(own):
            continue
        ratio = depth(list(found.values())) / depth(own)
        compared = list(found)[:-1]  # the number of classes may differ
        for alpha in sorted(ALPHAS, key=lambda alpha: abs(alpha - ratio))[:2]:
            scaled = shapes(name, alpha)
            if all(scaled.get(layer) == found[layer] for layer in compared):
                return f"The file looks like {name} at alpha {alpha}."
        why = OTHER_WIDTHS.get(checkpoint.kind, "The widths may be its own.")
        return f"The file looks like {name} at about alpha {ratio:.2f}. {why}"
    return f"The file looks like none of {', '.join(list_models())}."


ALPHAS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.3, 1.4, 1.5, 2.0)  # of published files
OTHER_WIDTHS = {
    "torchvision": "torchvision scales the paper's expanded widths, kzoo (as Keras and TF-slim) "
    "expands the scaled ones: at alphas other than 1.0 they round differently and do not fit.",
}
