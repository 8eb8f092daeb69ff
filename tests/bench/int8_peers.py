"""kzoo's int8 files beside those of other post-training quantizers, of the same float nets.

    uv venv PEERS && uv pip install --python PEERS/bin/python litert-quantizer==0.11.0 \\
        openvino==2026.4.1 nncf==3.4.0
    uv run python tests/bench/int8_peers.py PHOTOS --v3-small FILE.tflite --v2 FILE.pth \\
        --python PEERS/bin/python [--work FOLDER]

One draw of 100 photos calibrates, as in int8_draws.py, and 200 others score, against the float
Keras model. All start from the same float model: TensorFlow's converter from its Keras form,
litert-quantizer and NNCF from its float .tflite, in an environment of their own, where this file
runs as a program too. NNCF's model runs in OpenVINO, which reads that file. tfmot has no
post-training quantization but TensorFlow's (its training is in tfmot_qat.py). litert-quantizer's
algorithms are for the weights of linear layers, the rest by its default; GPTQ takes no convolution.

`opens`: whether LiteRT takes the file with XNNPACK, its default; one that it refuses is scored by
the reference kernels. Writes tests/bench/results/int8_peers.csv. What is in the work folder already
is not measured again. Cost: 4 minutes of CPU for V3-Small.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SCORED, DRAW = 200, 0
RECIPES = {
    "litert-quantizer": "MIN_MAX_UNIFORM_QUANT",
    "litert-quantizer MSE": "MSE",
    "litert-quantizer OCTAV": "OCTAV",
}
NNCF = "NNCF, OpenVINO"


def logits_of(path: Path, images: np.ndarray) -> tuple[np.ndarray, bool]:
    """(What a .tflite file says of images (N, H, W, C), whether XNNPACK takes it)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for options in ({}, {"experimental_op_resolver_type": plain}):
        try:
            interpreter = Interpreter(str(path), num_threads=1, **options)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError):
            continue
        (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
        found = []
        for image in images:
            interpreter.set_tensor(source["index"], stored(image[None], source))
            interpreter.invoke()
            found.append(interpreter.get_tensor(target["index"])[0])
        scale, zero = target["quantization"]
        y = np.stack(found).astype(np.float32)
        return ((y - zero) * scale if scale else y), not options
    raise ValueError(f"LiteRT refuses {path} with and without XNNPACK.")


def stored(values: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    """Values as a tensor of the file holds them. kzoo's takes bytes as they are."""
    (scale, zero), dtype = port["quantization"], port["dtype"]
    if dtype == np.int8:
        return np.clip(np.rint(values / scale) + zero, -128, 127).astype(dtype)
    return values.astype(dtype)


def litert_quantizer(algorithm: str, work: Path) -> np.ndarray:
    from litert_quantizer import quantizer, recipe, recipe_manager

    out, kinds = work / f"{algorithm}.tflite", recipe.TFLOperationName
    recipes, default = recipe_manager.RecipeManager(), "MIN_MAX_UNIFORM_QUANT"
    chosen = (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED)
    for kind in (kinds.ALL_SUPPORTED, *chosen):
        recipes.add_static_config(
            regex=".*", operation_name=kind, activation_num_bits=8, weight_num_bits=8,
            algorithm_key=recipe.AlgorithmName[algorithm if kind in chosen else default],
        )  # fmt: skip
    made = quantizer.Quantizer(str(work / "float.tflite"), recipes.get_quantization_recipe())
    calibration = np.load(work / "calibration.npy").astype(np.float32)
    name = json.loads((work / "input.json").read_text())
    data = {"serving_default": [{name: image[None]} for image in calibration]}
    made.quantize(made.calibrate(data, num_threads=1), serialize_to_path=str(out))
    return score(out, work)


def nncf(_: str, work: Path) -> np.ndarray:
    import nncf
    import openvino

    core = openvino.Core()
    model = core.read_model(work / "float.tflite")
    calibration = np.load(work / "calibration.npy").astype(np.float32)
    data = nncf.Dataset([image[None] for image in calibration])
    int8 = nncf.quantize(
        model, data, subset_size=len(calibration), preset=nncf.QuantizationPreset.MIXED
    )
    run = core.compile_model(int8, "CPU", {"INFERENCE_NUM_THREADS": 1})
    images = np.load(work / "images.npy").astype(np.float32)
    return np.concatenate([run(image[None])[0] for image in images])


def score(path: Path, work: Path) -> np.ndarray:
    """What the file says; whether it opens is noted beside it."""
    found, opens = logits_of(path, np.load(work / "images.npy"))
    path.with_suffix(".opens").write_text(json.dumps(opens))
    return found


def inside(peer: str, work: Path) -> None:
    """In the environment of the peers: quantize, run, leave the logits."""
    make: Callable[[str, Path], np.ndarray] = nncf if peer == NNCF else litert_quantizer
    np.save(work / f"{peer}.npy", make(RECIPES.get(peer, ""), work))


def figures(wanted: np.ndarray, found: np.ndarray) -> dict[str, str]:
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (wanted, found))
    sqnr = 10 * np.log10(np.square(a).sum() / np.square(a - b).sum())
    return {
        "agreement": f"{(a.argmax(-1) == b.argmax(-1)).mean():.3f}", "sqnr_db": f"{sqnr:.1f}",
    }  # fmt: skip


def measured(net: str, model: Any, peers: Path, work: Path, drawn: tuple[Any, Any]) -> list[dict]:
    """The rows of one net. `drawn`: images (N, H, W, C) to calibrate on and to score on."""
    import kzoo
    from kzoo.tflite import convert

    work.mkdir(parents=True, exist_ok=True)
    calibration, images = drawn
    np.save(work / "calibration.npy", calibration)
    np.save(work / "images.npy", images)
    if not (work / "float.tflite").is_file():
        convert(model, work / "float.tflite", scheme="float32")
    (work / "input.json").write_text(json.dumps(model.inputs[0].name))
    wanted = model.predict(images.astype(np.float32), batch_size=16, verbose=0)

    def of_kzoo(file: Path, **options: Any) -> None:
        convert(kzoo.quantize(model, calibration=calibration, **options), file)

    def of_tensorflow(file: Path) -> None:
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((1, *images.shape[1:]), tf.float32)])
        def run(image: Any) -> Any:
            return model(image, training=False)

        to = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
        to.optimizations = [tf.lite.Optimize.DEFAULT]
        to.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        to.representative_dataset = lambda: ([x[None].astype("float32")] for x in calibration)
        file.write_bytes(to.convert())

    own: dict[str, Callable[[Path], None]] = {
        "kzoo": of_kzoo,
        "kzoo, equalized everywhere": lambda file: of_kzoo(file, equalization="all"),
        "TensorFlow": of_tensorflow,
    }
    rows = []
    for name in (*own, *RECIPES, NNCF):
        found, problem = work / f"{name}.npy", ""
        file = work / f"{RECIPES.get(name, name)}.tflite"
        if not found.is_file() and name in own:
            if not file.is_file():
                own[name](file)
            np.save(found, score(file, work))
        elif not found.is_file():
            words = [str(peers), __file__, "--inside", name, "--work", str(work)]
            done = subprocess.run(words, capture_output=True, text=True)
            problem = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
        row = {"net": net, "quantizer": name, "agreement": "", "sqnr_db": "", "opens": ""}
        if found.is_file():
            opens = file.with_suffix(".opens")
            row |= figures(wanted, np.load(found))
            row["opens"] = json.loads(opens.read_text()) if opens.is_file() else "OpenVINO"
        rows.append(row | {"photos": len(images), "problem": problem[:100]})
        print(*rows[-1].values(), flush=True)
    return rows


def main() -> None:
    from int8_draws import BUILD, drawn, photos
    from record import record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--v3-small", type=Path, help="a .tflite file of 1,000 classes")
    parser.add_argument("--v2", type=Path, help="torchvision's mobilenet_v2-b0353104.pth")
    parser.add_argument("--python", type=Path, required=True, help="of the peers' environment")
    parser.add_argument("--work", type=Path, help="folder of what is measured already")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="int8_peers_"))
    pool, images = photos(options.photos, SCORED)
    rows = []
    for net, weights in (("V3-Small", options.v3_small), ("V2", options.v2)):
        if weights:
            model = BUILD[net](weights=weights, classifier_activation=None)
            both = drawn(pool, DRAW), images
            rows += measured(net, model, options.python, work / net, both)
    record("int8_peers", rows, seed=DRAW)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], Path(sys.argv[4]))
    else:
        main()
