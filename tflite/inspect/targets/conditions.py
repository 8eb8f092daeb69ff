"""Conditions on an operator's settings and constants, used in the rules of targets."""

from kzoo.tflite.inspect.targets.rules import Answer, Condition, Operation
from kzoo.tflite.xnnpack import LINEAR


def fused(*allowed: str) -> Condition:
    """Require the fused activation to be one of these, or none."""

    def check(operation: Operation) -> Answer | None:
        found = operation.option("activation", "none")
        if found in ("none", *allowed):
            return None
        return Answer("no", f"with fused {found}")

    return check


def bias(*dtypes: str) -> Condition:
    """Require the bias of a linear operator, if any, to have one of these dtypes."""

    def check(operation: Operation) -> Answer | None:
        tensor = operation.input(LINEAR[operation.op.name].bias)
        if tensor is None or tensor.dtype in dtypes:
            return None
        return Answer("no", f"with a bias of {tensor.dtype}")

    return check


def weights(*dtypes: str) -> Condition:
    """Require the weights of a linear operator to have one of these dtypes."""

    def check(operation: Operation) -> Answer | None:
        tensor = operation.input(LINEAR[operation.op.name].weights)
        if tensor is None or tensor.dtype in dtypes:
            return None
        return Answer("no", f"with weights of {tensor.dtype}")

    return check


def not_hybrid(operation: Operation) -> Answer | None:
    """Require float weights for float activations."""
    place = LINEAR[operation.op.name]
    x, kernel = operation.input(place.x), operation.input(place.weights)
    if x is None or kernel is None or x.dtype != "float32" or kernel.dtype == "float32":
        return None
    return Answer("no", f"in float32 with weights of {kernel.dtype}")


def has_bias(operation: Operation) -> Answer | None:
    if operation.input(LINEAR[operation.op.name].bias) is None:
        return Answer("no", "without a bias")
    return None


def rank(least: int, most: int) -> Condition:
    """Require the first input to have `least` to `most` dimensions."""

    def check(operation: Operation) -> Answer | None:
        tensor = operation.input(0)
        if tensor is None or least <= len(tensor.shape) <= most:
            return None
        return Answer("no", f"of {len(tensor.shape)} dimensions")

    return check


def inputs(least: int, most: int) -> Condition:
    """Require `least` to `most` inputs."""

    def check(operation: Operation) -> Answer | None:
        n = len(operation.op.inputs)
        return None if least <= n <= most else Answer("no", f"of {n} inputs")

    return check


def same_dtypes(operation: Operation) -> Answer | None:
    """Require all activations to have the same dtype."""
    found = sorted({tensor.dtype for tensor in operation.activations()})
    return Answer("no", f"from and to {' and '.join(found)}") if len(found) > 1 else None


def dtype_pairs(*pairs: tuple[str, str]) -> Condition:
    """Require (dtype of the input, dtype of the output) to be one of these."""

    def check(operation: Operation) -> Answer | None:
        x, outputs = operation.input(0), operation.op.outputs
        if x is None or not outputs:
            return None
        y = operation.graph.tensors[outputs[0]]
        if (x.dtype, y.dtype) in pairs:
            return None
        return Answer("no", f"from {x.dtype} to {y.dtype}")

    return check


def same_dilation(operation: Operation) -> Answer | None:
    across, down = operation.option("dilation_w", 1), operation.option("dilation_h", 1)
    return None if across == down else Answer("no", f"with dilation {down} x {across}")


def beta_one(operation: Operation) -> Answer | None:
    beta = operation.option("beta", 1.0)
    return None if beta == 1 else Answer("no", f"with beta {beta:g}")


def constant_axes(operation: Operation) -> Answer | None:
    """Require constant axes."""
    return Answer("no", "over axes that it computes") if operation.constant(1) is None else None


def keeps_batch(operation: Operation) -> Answer | None:
    """Require a reduction not to include the batch axis."""
    axes, x = operation.constant(1), operation.input(0)
    if axes is None or x is None:
        return Answer("unknown", "over axes that it computes")
    batch = {int(axis) % max(len(x.shape), 1) for axis in axes.reshape(-1)} & {0}
    return Answer("no", "over the batch") if batch else None


def channels_by_four(operation: Operation) -> Answer | None:
    """Require a multiple of 4 channels for a reduction over them."""
    axes, x = operation.constant(1), operation.input(0)
    if axes is None or x is None or len(x.shape) != 4:
        return None
    over = {int(axis) % 4 for axis in axes.reshape(-1)}
    if 3 in over and x.shape[3] % 4:
        return Answer("no", f"over {x.shape[3]} channels, no multiple of 4")
    return None


def no_masks(*names: str) -> Condition:
    """Require these masks of a STRIDED_SLICE to be empty."""

    def check(operation: Operation) -> Answer | None:
        used = [name for name in names if operation.option(name, 0)]
        return Answer("no", f"with {' and '.join(used)}") if used else None

    return check


def unit_strides(operation: Operation) -> Answer | None:
    strides = operation.constant(3)
    if strides is not None and (strides == 1).all():
        return None
    return Answer("no", "with strides other than 1")


def one_corner_rule(operation: Operation) -> Answer | None:
    if operation.option("align_corners") and operation.option("half_pixel_centers"):
        return Answer("no", "with align_corners and half_pixel_centers")
    return None


def vector_of_at_most(elements: int) -> Condition:
    """Require the input to be one vector of at most so many elements."""

    def check(operation: Operation) -> Answer | None:
        tensor = operation.input(0)
        if tensor is None:
            return None
        sides = [side for side in tensor.shape if side != 1]
        if len(sides) > 1:
            return Answer("no", f"of {len(sides)} dimensions")
        if sides and sides[0] > elements:
            return Answer("no", f"of {sides[0]} numbers, more than {elements}")
        return None

    return check


def depends(reason: str) -> Condition:
    """Answer "unknown": the list has the operator, but support depends on something else."""
    return lambda operation: Answer("unknown", reason)


NOT_READ = depends("it is in the list, under conditions that were not read")
