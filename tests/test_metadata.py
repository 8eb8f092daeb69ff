"""Metadata against files that MediaPipe's own writers and Google's converters made, and on damage.

What the apps' own code makes of kzoo's files is tested by tests/clients.
"""

import io
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.tflite import (
    BoxOutputs,
    ClassifierOutput,
    DetectionOutputs,
    Metadata,
    Runner,
    SegmenterOutput,
    audit,
    convert,
    read_metadata,
)
from kzoo.tflite.convert.postprocess import PostProcess, add_postprocess
from kzoo.tflite.runtime.find_objects import as_own
from kzoo.weights.readers.flatbuffer import read_tflite

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
LABELS = ("Hülle", "写", "c", "d", "e")
writes = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs TensorFlow's flatbuffers"
)


def golden(task: str) -> bytes:
    """A file whose metadata MediaPipe wrote: see the program of that name in golden/."""
    with np.load(GOLDEN / "mediapipe_metadata.npz") as files:
        return files[task].tobytes()


def centred(y: float, x: float, height: float, width: float) -> list[float]:
    return [y - height / 2, x - width / 2, y + height / 2, x + width / 2]


def test_what_mediapipe_writes():
    found = read_metadata(golden("classify"))
    assert found.labels == tuple(f"name {i}" for i in range(5))
    assert (found.outputs, found.normalization) == (ClassifierOutput(), (127.5, 64.0))
    assert read_metadata(golden("segment")).outputs == SegmenterOutput("sigmoid")
    boxes = read_metadata(golden("detect")).outputs
    # x_scale=10, y_scale=20, w_scale=5, h_scale=4 in golden/mediapipe_metadata.py
    assert (boxes.scales, boxes.sigmoid) == ((20.0, 10.0, 4.0, 5.0), True)
    want = [centred(0.5, 0.25 * i, 0.0625, 0.125) for i in range(1, 5)]
    np.testing.assert_array_equal(boxes.anchors, np.float32(want))


def test_codes_and_logits_are_read_as_metadata_say():
    """(10, 20, 4, 5) for y, x, h, w, by hand: y = ya + 2 / 20 ha, h = ha exp(1 / 4)."""
    anchors = np.float32([[0.25, 0.25, 0.75, 0.75]])
    kind = BoxOutputs(anchors, (20.0, 10.0, 4.0, 5.0), sigmoid=True)
    raw = {"boxes": np.float32([[[2, 1, 1, 0]]]), "scores": np.float32([[[1, -9]]])}
    (found,) = kzoo.detections(as_own(raw, kind), anchors, score_threshold=0.5)
    height = 0.5 * np.exp(1 / 4)
    want = [0.55 - height / 2, 0.55 - 0.25, 0.55 + height / 2, 0.55 + 0.25]
    np.testing.assert_allclose(found.boxes, [want], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-1))], rtol=1e-6)


def test_pixels_reach_a_float_input_as_metadata_say(tmp_path):
    file = tmp_path / "a.tflite"
    file.write_bytes(golden("classify"))
    runner = Runner(file)
    assert runner.input.dtype == "float32"
    pixels = np.random.default_rng(0).integers(0, 256, runner.input.shape).astype("uint8")
    want = runner((np.float32(pixels) - 127.5) / 64)
    np.testing.assert_array_equal(runner.on_pixels(pixels), want)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is not here")
def test_other_peoples_files():
    names = (WEIGHTS / "imagenet_labels_1001.txt").read_text().splitlines()
    found = read_metadata(WEIGHTS / "mobilenet_v2_1.0_224_quant.tflite")
    assert len(found.labels) == 1001
    assert found.labels[1].startswith("tench")
    assert len(names) == 1001
    assert read_metadata(WEIGHTS / "mobilenet_v1_0.25_224_float.tflite") is None


@writes
@pytest.mark.parametrize(
    ("task", "metadata"),
    [
        ("classify", Metadata(LABELS, "photos", "what they show", "3", "me", "Apache-2.0")),
        ("classify", Metadata(LABELS, normalization=(127.5, 127.5), run={"alpha": 0.75, "b": [1]})),
        ("classify", Metadata(LABELS, normalization=((123.5, 116.25, 103.5), 58.0))),
        ("segment", Metadata(("a", "b"), outputs=SegmenterOutput("none"))),
        ("detect", Metadata(("a", "b", "c"), outputs=BoxOutputs(
            np.float32([centred(0.5, 0.25 * i, 0.0625, 0.125) for i in range(4)])))),
    ],
)  # fmt: skip
def test_written_in_place_of_mediapipes_own(task, metadata):
    from kzoo.tflite.metadata.writing import add_metadata

    content = add_metadata(golden(task), metadata)
    assert content == add_metadata(golden(task), metadata)
    found = read_metadata(content)
    for key in ("labels", "description", "version", "author", "license", "run", "normalization"):
        assert getattr(found, key) == getattr(metadata, key)
    if task == "detect":
        np.testing.assert_allclose(found.outputs.anchors, metadata.outputs.anchors, atol=1e-7)
        assert found.outputs.scales == (10.0, 10.0, 5.0, 5.0)
    # The net is as it was: the same operators on the same constants.
    before, after = read_tflite(golden(task)), read_tflite(content)
    assert before.graphs == after.graphs
    assert len(after.metadata) == len(before.metadata)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


@writes
@pytest.mark.parametrize(
    ("task", "metadata", "message"),
    [
        ("classify", Metadata(("a",)), r"5 classes, but there are 1 labels"),
        ("segment", Metadata(("a",)), r"2 classes, but there are 1 labels"),
        ("detect", Metadata(), r"pass what they are"),
        ("detect", Metadata(outputs=ClassifierOutput()), r"outputs of \[2\] axes"),
        ("detect", Metadata(outputs=BoxOutputs(np.zeros((9, 4)))), r"9 anchors do not fit boxes"),
        ("detect", Metadata(outputs=BoxOutputs(np.zeros((4, 4)), scores="x")), r"metadata name"),
        ("detect", Metadata(outputs=DetectionOutputs()), r"metadata name \['boxes', 'classes'"),
    ],
)
def test_metadata_that_do_not_fit(task, metadata, message):
    from kzoo.tflite.metadata.writing import add_metadata

    with pytest.raises(ValueError, match=message):
        add_metadata(golden(task), metadata)


def test_values_that_make_no_sense():
    with pytest.raises(ValueError, match=r"anchors must be \(A, 4\).*\(4, 3\)"):
        BoxOutputs(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"one of none, sigmoid, softmax. Received: 'relu'"):
        SegmenterOutput("relu")


@writes
def test_convert_writes_labels_into_the_file(tiny, unseen, tmp_path):
    out = convert(
        tiny, tmp_path / "a.tflite", scheme="float32", labels=list("abcdef"),
        metadata=Metadata(author="me", run={"alpha": 0.35}),
    )  # fmt: skip
    found = audit(out)
    assert found.metadata.labels == tuple("abcdef")
    assert found.metadata.run == {"alpha": 0.35}
    assert "metadata     for ImageClassifier" in str(found)
    assert "author me" in str(found)
    bare = convert(tiny, tmp_path / "b.tflite", scheme="float32")
    assert audit(bare).metadata is None
    np.testing.assert_array_equal(Runner(out)(unseen[0][:4]), Runner(bare)(unseen[0][:4]))


@writes
def test_a_postprocess_that_does_not_run_is_not_written(tmp_path):
    file, out = tmp_path / "a.tflite", tmp_path / "out.tflite"
    file.write_bytes(golden("detect"))
    out.write_bytes(b"the file of before")
    with pytest.raises(
        ValueError, match=r"out\.tflite was not written: it does not run.*threshold"
    ):
        add_postprocess(file, out, settings=PostProcess(overlap=2))  # an IoU is 1 at the most
    assert out.read_bytes() == b"the file of before"
    assert len(list(tmp_path.iterdir())) == 2
    assert read_metadata(add_postprocess(file, out)).outputs == DetectionOutputs()


def archive(content: bytes, name: str, inside: bytes, method: int) -> bytes:
    """The file with another zip behind it."""
    whole = io.BytesIO(content[: content.index(b"PK\x03\x04")])
    with zipfile.ZipFile(whole, "a", method) as out:
        out.writestr(name, inside)
    return whole.getvalue()


def test_archives_that_are_hostile():
    bomb = archive(golden("classify"), "labels.txt", bytes(1 << 26), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    assert read_metadata(bomb).labels == ()
    honest = archive(golden("classify"), "labels.txt", b"a\nb", zipfile.ZIP_DEFLATED)
    assert read_metadata(honest).labels == ("a", "b")
    for cut in range(8, len(honest), 97):
        try:
            read_metadata(honest[:cut])
        except ValueError:
            continue


def test_metadata_cut_off_or_overwritten():
    random = np.random.default_rng(0)
    refused = 0
    for task in ("classify", "segment", "detect"):
        for _ in range(150):
            damaged = bytearray(golden(task))
            for at in random.integers(8, len(damaged), 12):
                damaged[at] = random.integers(256)
            try:
                str(read_metadata(bytes(damaged)))
            except ValueError:
                refused += 1
    assert refused > 50
    start = golden("classify").index(b"M001")
    damaged = golden("classify")[:start] + b"M002" + golden("classify")[start + 4 :]
    with pytest.raises(ValueError, match=r"metadata of this \.tflite file are damaged"):
        read_metadata(damaged)
