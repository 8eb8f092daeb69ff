"""Where a quantized model in Keras and its file under XNNPACK differ, and how that grows.

    uv run python tests/bench/qat_fidelity.py RUN [--images 8]

RUN is the folder of a `kzoo classify` run with an int8 stage. Its net is converted with the output
of every fake-quant as an output of the file, and run on validation images in two ways: each
operation fed with the file's own values (what one operation adds), and with its own (what piles
up). A minute of CPU. Reached for a V3-Small on 224-px photos: alone, an operation differs from the
file in 1 of 100,000 elements, by one quantum (a sum of products in float32 falls on the other side
of a rounding edge); piled up, the first such element has changed 10 % of all by row 5 and 80 % of
the logits, by a few quanta.
"""

import argparse
import collections
import re
from pathlib import Path

import keras
import numpy as np

from kzoo.quantization.layers import FakeQuant
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import read_run


def file_with_all_outputs(model: keras.Model) -> tuple[object, dict[str, int]]:
    """(An interpreter with XNNPACK, {fake-quant: output of the file}), from after preprocessing."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    outputs = {x.name: x.output for x in model.layers if isinstance(x, FakeQuant)}
    start = model.get_layer("preprocessing").output
    body = keras.Model(start, [outputs[name] for name in sorted(outputs)])

    @tf.function(input_signature=[tf.TensorSpec((1, *start.shape[1:]), tf.float32)])
    def run(image):
        return body(image, training=False)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    found = {}
    for detail in interpreter.get_output_details():  # Identity, Identity_1, ..., in any order
        number = re.search(r"_(\d+)$", detail["name"])
        found[sorted(outputs)[int(number[1]) if number else 0]] = detail["index"]
    return interpreter, found


def differences(
    model: keras.Model, file: dict[str, np.ndarray], image: np.ndarray, *, forced: bool
) -> dict[str, tuple[str, np.ndarray]]:
    """{fake-quant: (kind of operation before it, differences in quanta)} for one image."""
    values, found = {}, {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) or layer.name == "preprocessing":
            values[layer.name] = image
            continue
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[tensor._keras_history.operation.name] for tensor in given]
        y = keras.ops.convert_to_numpy(layer(inputs if len(inputs) > 1 else inputs[0]))
        if isinstance(layer, FakeQuant):
            low, high = map(float, layer.get_weights())
            theirs = file[layer.name].reshape(y.shape)
            kind = type(given[0]._keras_history.operation).__name__
            found[layer.name] = kind, np.abs(np.rint((y - theirs) * 255 / (high - low)))
            y = theirs if forced else y
        values[layer.name] = y
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=8)
    options = parser.parse_args()
    _, dataset, size = read_run(options.run)
    model = keras.saving.load_model(options.run / "checkpoint" / "3-qat.keras", compile=False)
    interpreter, indices = file_with_all_outputs(model)
    prepare = model.get_layer("preprocessing")
    alone, piled = collections.defaultdict(list), collections.defaultdict(list)
    step = len(dataset.val) // options.images
    for pixels in Images(dataset.val.paths, size)[::step]:
        image = keras.ops.convert_to_numpy(prepare(pixels[None].astype("float32")))
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        file = {name: interpreter.get_tensor(index) for name, index in indices.items()}
        for kind, quanta in differences(model, file, image, forced=True).values():
            alone[kind].append(quanta.ravel())
        for name, (_, quanta) in differences(model, file, image, forced=False).items():
            piled[name].append(quanta.ravel())
    for title, groups in (("alone, by kind", alone), ("piled up, by fake-quant", piled)):
        print(f"{title:40} {'elements':>10} {'differ':>9} {'at most':>8} quanta")
        for name, found in groups.items():
            quanta = np.concatenate(found)
            print(f"{name:40} {quanta.size:10,} {np.mean(quanta > 0):9.5f} {quanta.max():8.0f}")


if __name__ == "__main__":
    main()
