"""Conversion of models to tf-keras (Keras 2), which tensorflow-model-optimization needs, and back.

tf-keras runs beside Keras 3 in one process; it computes with TensorFlow, whatever Keras' backend.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from kzoo.quantization.read import functional
from kzoo.quantization.rules.translate import function_of, operands


def neighbour(module: str, extra: str) -> Any:
    """Import a module of an optional package; raise ImportError that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed ({error}). It comes with an extra of kzoo: "
            f"pip install 'kzoo[{extra}]'"
        ) from error


def to_tf_keras(model: keras.Model) -> Any:
    """Return a functional or sequential model as a tf-keras model with the same weights and names.

    Nested models are flattened, since tfmot takes flat graphs only; everything computes in float32.
    A hard-swish becomes (x * (1/6)) * relu6(x + 3) in plain layers: quantized by tfmot, it runs in
    XNNPACK, while TensorFlow's converter replaces x * relu6(x + 3) * (1/6) by a HARD_SWISH, which
    does not. A detector's loss and the compiled loss and optimizer are not converted.

    Raises ValueError for a layer or setting that tf-keras does not have, with its name.
    """
    tf_keras = neighbour("tf_keras", "tfmot")
    if not getattr(model, "inputs", None):
        raise ValueError(
            "to_tf_keras() takes a functional or sequential model that is built. Received: "
            f"{model!r}. Build a subclassed model again with keras.Model(inputs, outputs)."
        )
    model = functional(model)
    names = {id(op): name for name, op in operations_of(model).items()}
    made: dict[int, Callable[[Sequence[Any]], Any]] = {}

    def call(op: Any, arguments: Any, inputs: list[Any]) -> Any:
        if not isinstance(op, keras.layers.Layer):
            return operator(tf_keras, op, arguments, inputs, names[id(op)])
        if id(op) not in made:
            made[id(op)] = transcribed(tf_keras, op, names[id(op)])
        return made[id(op)](inputs)

    images = {id(x): tf_keras.Input(x.shape[1:], name=x.name, dtype=x.dtype) for x in model.inputs}
    outputs = iter(run(model, [images[id(x)] for x in model.inputs], call))
    net = tf_keras.Model(
        keras.tree.map_structure(lambda x: images[id(x)], model.input),
        keras.tree.map_structure(lambda _: next(outputs), model.output),
        name=model.name,
    )
    for name, own in weighted(model).items():
        twin = net.get_layer(name)
        twin.set_weights(own.get_weights())
        twin.trainable = own.trainable
    return net


def from_tf_keras(net: Any, model: keras.Model) -> keras.Model:
    """Return `model` with the weights of `net`, which `to_tf_keras(model)` returned.

    `net` may have been trained, pruned, clustered (call strip_clustering before) or quantized by
    tfmot. Keras 3 does not keep zeros or clusters in further training. A quantized net's activation
    ranges and rounding of weights are lost; `kzoo.quantize` calibrates again.

    Raises ValueError if layers or shapes of weights do not match.
    """
    found = {getattr(layer, "layer", layer).name: layer for layer in net.layers}
    values = []
    for name, layer in weighted(model).items():
        if name not in found:
            raise ValueError(
                f"{net.name!r} has no layer {name!r}, which {model.name!r} has weights in. Pass "
                "the model from which to_tf_keras() made it."
            )
        given = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in found[name].weights}
        if "cluster_centroids_kernel" in given or "pulling_indices_kernel" in given:
            raise ValueError(
                f"{name!r} is still in tfmot's clustering wrapper, which keeps its weights "
                "elsewhere: call tfmot.clustering.keras.strip_clustering(net) first."
            )
        for weight in layer.weights:
            value = given.get(weight.name, given.get(f"depthwise_{weight.name}"))
            if value is None or value.shape != tuple(weight.shape):
                came = "nothing" if value is None else f"one of shape {value.shape}"
                raise ValueError(
                    f"{name!r} wants a {weight.name} of shape {tuple(weight.shape)}, and the layer "
                    f"of that name in {net.name!r} has {came}. Pass the model from which "
                    "to_tf_keras() made it."
                )
            values.append((weight, value))
    for weight, value in values:
        weight.assign(value)
    return model


# The graph of a Keras 3 model.


def run(
    model: keras.Model, inputs: Sequence[Any], call: Callable[[Any, Any, list[Any]], Any]
) -> list[Any]:
    """Return the model's outputs, computing each operation by `call(op, arguments, inputs)`.

    Nested models are traversed in the same way.
    """
    graph = getattr(model, "_functional", model)
    values = dict(zip(map(id, graph.inputs), inputs, strict=True))
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if node.is_input:
                continue
            given = [values[id(x)] for x in node.input_tensors]
            if isinstance(node.operation, keras.Model):
                results = run(node.operation, given, call)
            else:
                results = [call(node.operation, node.arguments, given)]
            values.update(zip(map(id, node.outputs), results, strict=True))
    return [values[id(x)] for x in graph.outputs]


def operations_of(model: keras.Model) -> dict[str, Any]:
    """Return layers and operators by name, in graph order; repeated names get a suffix _1, ..."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def note(op: Any, arguments: Any, inputs: list[Any]) -> None:
        if id(op) in seen:
            return
        seen.add(id(op))
        name, again = op.name, 0
        while name in found:
            again += 1
            name = f"{op.name}_{again}"
        found[name] = op

    run(model, [None] * len(model.inputs), note)
    return found


def weighted(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers with weights, by name."""
    every = operations_of(model).items()
    return {name: op for name, op in every if isinstance(op, keras.layers.Layer) and op.weights}


# One layer.

# Layers that are equal in both; tests compare each. Arguments are copied by name.
SAME = (
    layers.Add, layers.Average, layers.AveragePooling2D, layers.BatchNormalization,
    layers.Concatenate, layers.Conv2D, layers.Conv2DTranspose, layers.Cropping2D, layers.Dense,
    layers.DepthwiseConv2D, layers.Dot, layers.Dropout, layers.Flatten,
    layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.LayerNormalization,
    layers.MaxPooling2D, layers.Maximum, layers.Minimum, layers.Multiply, layers.Permute,
    layers.ReLU, layers.Rescaling, layers.Reshape, layers.Resizing, layers.SeparableConv2D,
    layers.Softmax, layers.SpatialDropout2D, layers.Subtract, layers.UpSampling2D,
    layers.ZeroPadding2D,
)  # fmt: skip
# Activation functions and their names in tf-keras.
FUNCTIONS = {
    "softmax": "softmax", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "swish", "elu": "elu",
    "selu": "selu", "gelu": "gelu", "softplus": "softplus", "exponential": "exponential",
}  # fmt: skip


def transcribed(tf_keras: Any, layer: keras.layers.Layer, name: str) -> Callable[..., Any]:
    """Return the tf-keras equivalent of `layer`: a function of a list of tensors."""
    if isinstance(layer, layers.Identity):
        return lambda inputs: inputs[0]
    if isinstance(layer, layers.Activation):
        return activation(tf_keras, function_of(layer), layer, name)
    if type(layer) not in SAME:
        raise ValueError(unsupported(layer))
    twin = getattr(tf_keras.layers, type(layer).__name__)
    new = twin(**settings(tf_keras, layer, twin), name=name)
    act = hasattr(layer, "activation") and function_of(layer) != "linear"
    after = activation(tf_keras, function_of(layer), layer, f"{name}_act") if act else None

    def call(inputs: Sequence[Any]) -> Any:
        y = new(inputs if len(inputs) > 1 else inputs[0])
        return after([y]) if after else y

    return call


def settings(tf_keras: Any, layer: keras.layers.Layer, twin: type) -> dict[str, Any]:
    """Return the arguments of `layer` for the tf-keras class `twin`.

    Without name, dtype and initializers. Raises ValueError for a setting that `twin` lacks.
    """
    known = inspect.signature(twin).parameters
    default = inspect.signature(type(layer)).parameters
    found = {}
    for key, value in layer.get_config().items():
        if key in ("name", "trainable", "dtype", "activation") or key.endswith("_initializer"):
            continue
        if key not in known:
            if value != "channels_last" and key in default and value != default[key].default:
                raise ValueError(
                    f"tf-keras' {twin.__name__} has no {key}, and {layer.name!r} has "
                    f"{key}={value!r}. Build it without."
                )
            continue
        for kind in ("regularizer", "constraint"):
            if key.endswith(f"_{kind}") and value:
                value = getattr(tf_keras, f"{kind}s").get(
                    {"class_name": value["class_name"], "config": value["config"]}
                )
        found[key] = value
    return found


def activation(tf_keras: Any, function: str, layer: Any, name: str) -> Callable[..., Any]:
    """Return an activation as a function of [tensor]; ReLUs are layers, which tfmot recognizes."""
    new = tf_keras.layers
    if function in FUNCTIONS:
        same = new.Activation(FUNCTIONS[function], name=name)
        return lambda inputs: same(inputs[0])
    if function == "hard_sigmoid":
        shifted, sixth = relu6_of_sum(tf_keras, name), new.Rescaling(1 / 6, name=name)
        return lambda inputs: sixth(shifted(inputs[0]))
    if function in ("hard_silu", "hard_swish"):
        gate, sixth = relu6_of_sum(tf_keras, name), new.Rescaling(1 / 6, name=f"{name}_sixth")
        product = new.Multiply(name=name)
        return lambda inputs: product([sixth(inputs[0]), gate(inputs[0])])
    relus = {"relu": None, "relu6": 6.0}
    if function in relus:
        relu = new.ReLU(relus[function], name=name)
        return lambda inputs: relu(inputs[0])
    if function == "linear":
        return lambda inputs: inputs[0]
    raise ValueError(unsupported(layer))


def relu6_of_sum(tf_keras: Any, name: str) -> Callable[[Any], Any]:
    """Return relu6(x + 3) as a function, made of layers that tf-keras can save."""
    plus = tf_keras.layers.Rescaling(1.0, 3.0, name=f"{name}_plus3")
    relu6 = tf_keras.layers.ReLU(6.0, name=f"{name}_relu6")
    return lambda x: relu6(plus(x))


def operator(tf_keras: Any, op: Any, arguments: Any, inputs: list[Any], name: str) -> Any:
    """Return the output of an operator, such as x + 3.0 in keras.applications' V3."""
    kind = type(op).__name__
    if kind in ("Relu", "Relu6", "Sigmoid", "Silu", "HardSigmoid", "HardSilu"):
        function = {"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"}.get(kind, kind.lower())
        return activation(tf_keras, function, op, name)(inputs)
    joins = {"Add": "Add", "Multiply": "Multiply", "Subtract": "Subtract"}
    if kind in joins and len(inputs) == 2:
        return getattr(tf_keras.layers, joins[kind])(name=name)(inputs)
    if kind in joins:
        left, right = operands(arguments, ("x",) * len(inputs))
        number = left if right == "x" else right
        if isinstance(number, int | float) and not (kind == "Subtract" and right == "x"):
            a = float(number)
            scale, offset = {"Add": (1.0, a), "Multiply": (a, 0.0), "Subtract": (1.0, -a)}[kind]
            return tf_keras.layers.Rescaling(scale, offset, name=name)(inputs[0])
    raise ValueError(unsupported(op))


def unsupported(op: Any) -> str:
    known = ", ".join(layer.__name__ for layer in SAME)
    return (
        f"to_tf_keras() has nothing in tf-keras for {op.name!r} ({type(op).__name__} with these "
        f"settings). Replace it by layers from this list: Activation, {known}; or cut the model "
        "before it."
    )
