"""int8 files of quantized models: every operation against the interpreter, and what is in them."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import NETS, images, net, randomized

import kzoo
import kzoo.tflite
from kzoo.qat import FakeQuant
from kzoo.tflite import compare

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow converts", allow_module_level=True)

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
BUILTIN = interpreter.OpResolverType.BUILTIN
PLAIN = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def convert(model: keras.Model) -> bytes:
    """The file, from after the model's preprocessing: float input and output, int8 between."""
    import tensorflow as tf

    first = [layer for layer in model.layers if layer.name == "preprocessing"]
    body = keras.Model(first[0].output if first else model.input, model.output)
    shape = (1, *body.input.shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def run(image):
        return body(image, training=False)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with warnings.catch_warnings():  # the converter misses the statistics that fake-quants replace
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        return converter.convert()


def load(content: bytes, resolver=PLAIN, **options):
    model = interpreter.Interpreter(
        model_content=content, experimental_op_resolver_type=resolver, num_threads=1, **options
    )
    model.allocate_tensors()
    return model


def partitions(content: bytes) -> int:
    return sum(op["op_name"] == "DELEGATE" for op in load(content, BUILTIN)._get_ops_details())


def forced(model: keras.Model, content: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """Differences in quanta, by fake-quant, when each operation reads the interpreter's own inputs.

    The tensors of the file that a fake-quant stands for are found by scale, shape and order.
    """
    run = load(content, experimental_preserve_all_tensors=True)
    details = {t["index"]: t for t in run.get_tensor_details()}
    run.set_tensor(run.get_input_details()[0]["index"], image)
    run.invoke()
    produced = [int(op["outputs"][0]) for op in run._get_ops_details()]
    produced = [i for i in produced if details[i]["dtype"] == np.int8]
    values, found = {}, {}
    for layer in model.layers:
        if layer.name in ("image", "preprocessing"):
            values[layer.name] = image
            continue
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        x = [values[t._keras_history.operation.name] for t in given]
        y = np.array(layer(x if len(x) > 1 else x[0]))
        if isinstance(layer, FakeQuant):
            low, high = (float(w) for w in layer.get_weights())
            fits = (
                i for i in produced
                if np.isclose(details[i]["quantization"][0], (high - low) / 255, rtol=1e-6)
                and np.prod(details[i]["shape"]) == y.size
            )  # fmt: skip
            index = next(fits, None)
            assert index is not None, f"no tensor of the file has the range of {layer.name}"
            produced.remove(index)
            scale, zero_point = details[index]["quantization"]
            got = run.get_tensor(index).astype("float32").reshape(y.shape)
            found[layer.name] = np.abs(np.rint(y / scale) + zero_point - got)
            y = (got - zero_point) * np.float32(scale)
        values[layer.name] = y
    return found


@pytest.mark.slow
@pytest.mark.parametrize("hard_swish", ["split", "op"])
@pytest.mark.parametrize("name", NETS)
def test_every_operation_is_within_one_quantum_of_the_interpreter(name, hard_swish):
    if name == "v2" and hard_swish == "op":
        pytest.skip("MobileNetV2 has no hard-swish")
    model = kzoo.quantize(net(name), calibration=images(), hard_swish=hard_swish)
    content = convert(model)
    image = np.array(model.get_layer("preprocessing")(images(1, seed=3).astype("float32")))
    differences = forced(model, content, image)
    assert len(differences) == sum(isinstance(layer, FakeQuant) for layer in model.layers)
    assert max(d.max() for d in differences.values()) <= 1
    shares = {k: d.mean() for k, d in differences.items() if "pool" not in k and d.size > 1000}
    assert {k: v for k, v in shares.items() if v > 0.1} == {}

    run = load(content)
    dtypes = [t["dtype"] for t in run.get_tensor_details()]
    assert dtypes.count(np.float32) == 2  # the input and the output
    names = [op["op_name"] for op in run._get_ops_details()]
    assert names.count("QUANTIZE") == names.count("DEQUANTIZE") == 1
    if hard_swish == "split":
        assert partitions(content) == 1
        assert "HARD_SWISH" not in names
    else:
        assert names.count("HARD_SWISH") == {"v3-large": 21, "v3-small": 19}[name]


def test_weight_scales_in_the_file_are_the_models():
    model = kzoo.quantize(net("v2"), calibration=images(4))
    run = load(convert(model))
    scales = [t["quantization_parameters"]["scales"] for t in run.get_tensor_details()]
    for layer in model.layers:
        if hasattr(layer, "limits"):
            kernel = np.array(layer.kernel).reshape(-1, layer.bias.shape[0])
            floor, ceiling = np.array(layer.limits)
            wanted = np.clip(np.abs(kernel).max(axis=0), floor, ceiling) / 127
            found = [
                s for s in scales if len(s) == len(wanted) and np.allclose(s, wanted, rtol=1e-5)
            ]
            assert found, f"no tensor of the file has the weight scales of {layer.name}"


ONE = 1.001  # quantum: a difference of floats is not exactly that


def agreement(model: keras.Model, x: np.ndarray) -> float:
    """The largest difference between model and file under XNNPACK, in quanta of the output."""
    content = convert(model)
    run = load(content, BUILTIN)
    scale = next(float(layer.high - layer.low) / 255 for layer in model.layers[::-1]
                 if isinstance(layer, FakeQuant))  # fmt: skip
    largest = 0.0
    for image in x:
        y = np.array(model(image[None]))
        first = [layer for layer in model.layers if layer.name == "preprocessing"]
        run.set_tensor(
            run.get_input_details()[0]["index"],
            np.array(first[0](image[None]) if first else image[None]),
        )
        run.invoke()
        got = run.get_tensor(run.get_output_details()[0]["index"])
        largest = max(largest, float(np.abs(y - got).max() / scale))
    return largest


def test_a_near_dead_channel_whose_bias_would_overflow_int32():
    """|w| of 1e-6 beside a bias of 1, as pretrained MobileNetV3 has it (71 of 96 biases of one
    layer): without a floor under the range of its weights the file's bias is cut at 2^31."""
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 1, name="dead")(image)
    model = randomized(keras.Model(image, layers.Activation("relu", name="act")(x)))
    kernel, _ = model.get_layer("dead").get_weights()
    kernel[..., :2] *= 1e-9
    model.get_layer("dead").set_weights([kernel, np.float32([1, -0.5, 0.3, 1.2])])
    x = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 4)).astype("float32")
    quantized = kzoo.quantize(model, calibration=x)
    assert agreement(quantized, x[:4]) <= ONE
    y, z = model.predict_on_batch(x), quantized.predict_on_batch(x)
    np.testing.assert_allclose(y[..., 0], z[..., 0], atol=0.02)


def test_layers_are_compared_across_a_rounding_that_two_share():
    """What an upsampling gives lies on the levels of its input, and the same layer rounds both."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.UpSampling2D(2, interpolation="bilinear", name="up")(x)
    model = randomized(keras.Model(image, layers.Conv2D(3, 3, name="last")(x)))
    x = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 3)).astype("float32")
    quantized = kzoo.quantize(model, calibration=x)
    with tempfile.TemporaryDirectory() as folder:
        file = kzoo.tflite.convert(quantized, Path(folder) / "a.tflite", io="float32")
        found, again = (compare(quantized, file, x[:4], layers=4).layers for _ in range(2))
    assert {"first", "last"} <= {layer.name for layer in found}
    assert found == again  # asking leaves the model as it was
    assert min(layer.own_db for layer in found) > 30


def test_a_hard_swish_of_nearly_nothing_stays_within_xnnpacks_bounds():
    """Untrained nets have such: x + 3 is a sum, whose inputs may differ 1,000 times at most."""
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 1, name="conv")(image)
    x = layers.Conv2D(3, 1, name="last")(layers.Activation("hard_swish", name="act")(x))
    model = randomized(keras.Model(image, x))
    model.get_layer("conv").set_weights([np.full((1, 1, 4, 4), 1e-4), np.zeros(4)])
    x = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 4)).astype("float32")
    quantized = kzoo.quantize(model, calibration=x)
    assert partitions(convert(quantized)) == 1
    assert agreement(quantized, x[:4]) <= ONE


def test_a_saturating_gate_and_a_dead_activation_stay_within_xnnpacks_bounds():
    """A gate of huge weights (its range [0, 1] cannot widen) and a ReLU that never opens."""
    image = keras.Input((8, 8, 4), name="image")
    gate = layers.Conv2D(4, 1, name="gate")(image)
    gate = layers.Activation("hard_sigmoid", name="gate_act")(gate)
    x = layers.Multiply(name="scale")([image, gate])
    x = layers.Conv2D(4, 1, name="dead")(x)
    x = layers.Activation("relu", name="dead_act")(x)
    x = layers.Conv2D(3, 1, name="last")(x)
    model = randomized(keras.Model(image, x))
    model.get_layer("gate").kernel.assign(model.get_layer("gate").kernel * 1e6)
    model.get_layer("dead").bias.assign([-90.0, -90.0, -90.0, -90.0])
    x = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 4)).astype("float32")
    quantized = kzoo.quantize(model, calibration=x)
    ratios = []
    fake_quants = {
        layer.name: np.subtract(*layer.get_weights()[::-1]) / 255
        for layer in quantized.layers if isinstance(layer, FakeQuant)
    }  # fmt: skip
    for name, out in (
        ("gate", "gate_act_quant"),
        ("dead", "dead_act_quant"),
        ("last", "last_quant"),
    ):
        layer = quantized.get_layer(name)
        floor, ceiling = np.array(layer.limits)
        span = np.clip(np.abs(np.array(layer.kernel)).max(axis=(0, 1, 2)), floor, ceiling)
        ratios.append(float(layer.input_scale) * span.max() / 127 / fake_quants[out])
    assert max(ratios) <= 201
    assert agreement(quantized, x[:4]) <= 2 * ONE
    assert partitions(convert(quantized)) == 1
