"""Which client runs which of kzoo's files, and whether it says what `Runner` says.

    uv run python tests/clients/clients.py              # about 3 minutes, once 1 GB of downloads

Each client is the real thing: MediaPipe Tasks 1.2.2 and tflite-micro in virtual environments that
this program makes (--environments, by default in the user's cache), LiteRT's CompiledModel here,
LiteRT.js in headless Chromium. The classifier has learnt stripes (tests/conftest.py); the segmenter
and the detector have random weights, which serves to compare numbers.

A cell is the share of images with the same top class, of pixels with the same class, or of boxes
found with their class, their score to .02 and their place to 2 px; "-" is a refusal, told below.

With LiteRT 2.3, MediaPipe 1.2.2, tflite-micro 0.dev20261023, LiteRT.js 2.5.3 in Chromium 156: 1.000
everywhere but .992 to .996 of MediaPipe's boxes,
and .97 of tflite-micro's pixels in an int8 segmenter. MediaPipe and LiteRT.js refuse int8 inputs;
tflite-micro refuses float16, dynamic and float32 files with a CAST from bytes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1])]
from chromium import PROGRAM, Page  # noqa: E402
from conftest import gratings, settled, solved  # noqa: E402

import kzoo  # noqa: E402
from kzoo.detection.boxes import decode  # noqa: E402
from kzoo.recipes.programs.serve_page import default_cache, serve  # noqa: E402
from kzoo.tflite import (  # noqa: E402
    SCHEMES,
    BoxOutputs,
    Metadata,
    Runner,
    SegmenterOutput,
    convert,
    read_metadata,
)

HERE = Path(__file__).parent
PACKAGES = {"mediapipe": "mediapipe==1.2.2", "tflm": "tflite-micro"}
SIDE, IMAGES = 64, 12
Answer = list[Any]  # of a client, one for each image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, default=default_cache() / "clients")
    parser.add_argument("--cache", type=Path, help="of LiteRT.js, as for kzoo serve")
    parser.add_argument("--only", nargs="+", default=[""], help="words of the files' names")
    given = parser.parse_args()
    pythons = {name: environment(given.environments / name, name) for name in PACKAGES}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: file
            for name, file in made(Path(folder))
            if any(word in name for word in given.only)
        }
        images = gratings(IMAGES, seed=2)[0]
        np.save(Path(folder) / "images.npy", images)
        for i, image in enumerate(images):
            Image.fromarray(image).save(Path(folder) / f"{i}.png")
        clients: dict[str, Callable[[Path, str], float]] = {
            "CompiledModel": lambda file, task: compiled(file, images),
            "MediaPipe": lambda file, task: mediapipe(file, task, images, pythons["mediapipe"]),
            "tflite-micro": lambda file, task: micro(file, images, pythons["tflm"]),
            "LiteRT.js": lambda file, task: browser(file, task, images, given.cache),
        }
        print(f"{'file':26}" + "".join(f"{name:>15}" for name in clients))
        refusals = []
        for name, (file, task) in files.items():
            cells = []
            for client, run in clients.items():
                try:
                    cells.append(f"{run(file, task):15.3f}")
                except ValueError as error:
                    cells.append(f"{'-':>15}")
                    refusals.append(f"{name}, {client}: {error}")
            print(f"{name:26}" + "".join(cells), flush=True)
    print("\n".join(refusals))


def environment(folder: Path, name: str) -> Path:
    """The Python of a virtual environment with a client."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"{PACKAGES[name]} is installed into {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGES[name]], check=True)
    return python


def made(folder: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    """(name, (file, task)) of every file."""
    keras.utils.set_random_seed(0)
    images, labels = gratings(384, seed=0)
    shape, some = (SIDE, SIDE, 3), images[:100]
    v3 = kzoo.MobileNetV3Small(0.35, input_shape=shape, classes=6)
    net = solved(settled(v3, images[:128]), images, labels)
    names = [f"stripes {i}" for i in range(6)]
    for scheme in [name for name in SCHEMES if name != "int16x8"]:  # which has no HARD_SWISH
        for io in SCHEMES[scheme].inputs:
            out = folder / f"classifier {scheme} {io}.tflite"
            yield (
                out.stem,
                (
                    convert(net, out, scheme=scheme, io=io, calibration=some, labels=names),
                    "classify",
                ),
            )
    sigmoid = keras.layers.Activation("sigmoid", name="labels")
    tags = keras.Model(net.input, sigmoid(net.get_layer("predictions").input))
    said = Metadata(labels=tuple(names), thresholds=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95))
    out = folder / "labels int8 uint8.tflite"
    yield out.stem, (convert(tags, out, calibration=some, metadata=said), "classify")
    backbone = kzoo.MobileNetV3Small(0.35, input_shape=shape, include_top=False)
    detector = kzoo.SSDLite(settled(backbone, images[:128]), 6)
    for layer in detector.layers:
        if "project" in layer.name and layer.name.startswith("logits"):
            layer.kernel.assign(layer.kernel * 20)  # else all anchors say the same
    settled(detector, images[:128])
    for scheme, after in (("float32", None), ("int8", None), ("int8", "op")):
        out = folder / f"detector {scheme} uint8{' op' if after else ''}.tflite"
        yield out.stem, (
            convert(
                detector, out, scheme=scheme, io="uint8", calibration=some, labels=names,
                postprocess=after,
            ),
            "detect",
        )  # fmt: skip
    low = kzoo.MobileNetV3Small(0.35, input_shape=shape, include_top=False, output_stride=16)
    segmenter = kzoo.LRASPP(settled(low, images[:128]), 6)
    settled(segmenter, images[:128])
    for scheme, io in (("float32", "float32"), ("int8", "uint8")):
        out = folder / f"segmenter {scheme} {io}.tflite"
        said = Metadata(labels=tuple(names), outputs=SegmenterOutput("softmax"))
        yield (
            out.stem,
            (
                convert(segmenter, out, scheme=scheme, io=io, calibration=some, metadata=said),
                "segment",
            ),
        )


def told(done: subprocess.CompletedProcess) -> None:
    """Raise ValueError with the last line that a client's process said, if it failed."""
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise ValueError(lines[-1][:150])


def compiled(file: Path, images: np.ndarray) -> float:
    """LiteRT's CompiledModel: the share of outputs as `Runner` has them, in any task."""
    from ai_edge_litert.compiled_model import CompiledModel

    from kzoo.tflite.ports import dequantize, from_pixels

    runner = Runner(file)
    try:
        model = CompiledModel.from_file(str(file))
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    names = model.get_signature_by_index(0)["outputs"]
    agreed = []
    for image in images:
        inputs[0].write(from_pixels(image[None], runner.input.dtype))
        model.run_by_index(0, inputs, outputs)
        want = runner(image)
        want = want if isinstance(want, dict) else {runner.outputs[0].name: want}
        for port in runner.outputs:
            buffer = outputs[names.index(port.name)]
            values = buffer.read(int(np.prod(port.shape)), np.dtype(port.dtype))
            got = dequantize(np.reshape(values, port.shape), port)
            agreed.append(np.mean(np.isclose(got, want[port.name], rtol=1e-4, atol=1e-4)))
    return float(np.mean(agreed))


def mediapipe(file: Path, task: str, images: np.ndarray, python: Path) -> float:
    command = [python, HERE / "mediapipe_client.py", task, file, file.parent / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told(done)
    answers = json.loads(done.stdout.splitlines()[-1])
    values = Runner(file)(images)
    labels, thresholds = read_metadata(file).labels, read_metadata(file).thresholds
    if thresholds:  # MediaPipe's own defaults give back no label below its threshold
        same = [[c[2] for c in a] == [labels[i] for i in np.argsort(-b) if b[i] >= thresholds[i]]
                for a, b in zip(answers, values, strict=True)]  # fmt: skip
    elif task == "classify":
        same = [a[0][2] == labels[b.argmax()] and abs(a[0][1] - b.max()) < 0.02
                for a, b in zip(answers, values, strict=True)]  # fmt: skip
    elif task == "segment":
        same = [np.mean(np.array(a["mask"]) == b.argmax(-1)) if tuple(a["labels"]) == labels else 0
                for a, b in zip(answers, values, strict=True)]  # fmt: skip
    else:
        same = [found(box, boxes, scores, labels)
                for one, boxes, scores in zip(answers, *located(file, values), strict=True)
                for box in one]  # fmt: skip
    return float(np.mean(same))


def located(file: Path, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(Boxes (N, A, 4) in px, scores (N, A, classes)), by what the file says of its outputs."""
    said = read_metadata(file)
    if isinstance(said.outputs, BoxOutputs):
        return np.asarray(decode(values["boxes"], said.outputs.anchors)) * SIDE, values["scores"]
    one_class = np.eye(len(said.labels))[values["classes"].astype(int)]
    return values["boxes"] * SIDE, one_class * values["scores"][..., None]


def found(box: list, boxes: np.ndarray, scores: np.ndarray, labels: tuple[str, ...]) -> bool:
    """Whether a client's (x, y, width, height, score, label) is one of the anchors' boxes.

    MediaPipe moves a box that begins outside of the image to its edge, with its size.
    """
    x, y, width, height, score, label = box
    wanted = np.concatenate([np.maximum(boxes[:, :2], 0), boxes[:, 2:] - boxes[:, :2]], axis=1)
    near = np.abs(wanted - [y, x, height, width]).max(-1) <= 2
    return bool(np.any(near & (np.abs(scores[:, labels.index(label)] - score) < 0.02)))


def micro(file: Path, images: np.ndarray, python: Path) -> float:
    from kzoo.tflite.ports import from_pixels

    runner = Runner(file)
    stored, out = file.parent / "stored.npy", file.parent / "out.npy"
    np.save(stored, from_pixels(images, runner.input.dtype))
    done = subprocess.run(
        [python, HERE / "micro_client.py", file, stored, out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told(done)
    if len(runner.outputs) > 1:
        raise ValueError("not compared: it has several outputs")
    return float(np.mean(np.load(out).argmax(-1) == runner(images).argmax(-1)))


def browser(file: Path, task: str, images: np.ndarray, cache: Path | None) -> float:
    if PROGRAM is None:
        raise ValueError("Chromium is not installed")
    paths = [file.parent / f"{i}.png" for i in range(len(images))]
    server = serve(file, paths, port=0, cache=cache)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Page(f"http://127.0.0.1:{server.server_port}/") as page:
            if page.wait("document.body.dataset.state") != "ready":
                raise ValueError(page.value("document.getElementById('status').textContent"))
            shown = page.value(
                "[...document.querySelectorAll('figure')].reverse().map((figure) => "
                "[...figure.querySelectorAll('li')].map((item) => "
                "[item.firstChild.textContent, Number(item.dataset.share)]))"
            )
    finally:
        server.shutdown()
        server.server_close()
    metadata, values = read_metadata(file), Runner(file)(images)
    labels = metadata.labels
    if metadata.thresholds:  # several labels, or none
        above = [np.flatnonzero(b >= metadata.thresholds) for b in values]
        same = [{name for name, _ in rows} == {labels[i] for i in found}
                for rows, found in zip(shown, above, strict=True)]  # fmt: skip
    elif task == "classify":
        same = [rows[0][0] == labels[b.argmax()] for rows, b in zip(shown, values, strict=True)]
    elif task == "segment":
        same = [1 - sum(abs(np.mean(b.argmax(-1) == labels.index(name)) - share)
                        for name, share in rows) / 2
                for rows, b in zip(shown, values, strict=True)]  # fmt: skip
    else:
        # Several boxes can have the highest score, in int8 above all.
        same = [abs(rows[0][1] - scores[:, labels.index(rows[0][0])].max()) < 0.02 and
                abs(rows[0][1] - scores.max()) < 0.02
                for rows, scores in zip(shown, located(file, values)[1], strict=True)
                if rows]  # fmt: skip
    return float(np.mean(same))


if __name__ == "__main__":
    main()
