"""The page of `kzoo serve`, in a real browser and by plain requests."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from chromium import PROGRAM, Page
from PIL import Image

from kzoo.detection.detections import detections
from kzoo.recipes.data.images import read_image
from kzoo.recipes.programs import serve_page
from kzoo.recipes.programs.serve_page import package_file, serve
from kzoo.tflite import Runner, convert

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)


@pytest.fixture
def started():
    """`started(...)`: `serve(...)` on a free port, answering until the test ends."""
    servers = []

    def start(*arguments, **options):
        servers.append(serve(*arguments, port=0, **options))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_litert_js(tmp_path) -> Path:
    """A cache with an empty package in place of LiteRT.js."""
    package = tmp_path / "cache" / "litertjs-2.5.3" / "node_modules" / "@litertjs" / "core"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    (tmp_path / "cache" / "secret.txt").write_text("not for the page")
    return tmp_path / "cache"


def get(port: int, path: str, host: str = "127.0.0.1") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    return connection.getresponse()


def test_answers_to_this_machine_and_with_its_own_files_only(tiny, tmp_path, no_litert_js, started):
    file = convert(tiny, tmp_path / "a.tflite", scheme="float32", labels=list("abcdef"))
    port = started(file, cache=no_litert_js)
    page = get(port, "/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert b"https://" not in page.read()
    about = json.loads(get(port, "/about.json").read())
    assert (about["labels"], about["task"]) == (list("abcdef"), "ImageClassifier")
    assert get(port, "/model.tflite").read() == file.read_bytes()
    assert get(port, "/npm/@litertjs/core/package.json").read() == b"{}"
    for path in ("/npm/../../secret.txt", "/npm/%2e%2e/secret.txt", "/image/0", "/labels.txt"):
        assert get(port, path).status == 404
    assert get(port, "/about.json", host="elsewhere.example").status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_can_be_sent(method, tiny, tmp_path, no_litert_js, started):
    port = started(convert(tiny, tmp_path / "a.tflite", scheme="float32"), cache=no_litert_js)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, "/about.json", headers={"Content-Length": str(1 << 40)})
    assert connection.getresponse().status == 405


@pytest.mark.parametrize("path", ["/npm/" + "a" * 5000, "/npm/%00", "/npm/\0x", "/npm//etc/passwd"])
def test_names_that_no_file_has(path, tmp_path, no_litert_js):
    packages = no_litert_js / "litertjs-2.5.3" / "node_modules"
    assert package_file(packages, path) is None


def test_what_cannot_be_served(tiny, tmp_path, no_litert_js, monkeypatch):
    with pytest.raises(ValueError, match=r"There is no .*none\.tflite"):
        serve(tmp_path / "none.tflite")
    image = keras.Input((32, 32, 3))
    two = keras.Model(image, [keras.layers.Conv2D(2, 1)(image), keras.layers.Flatten()(image)])
    odd = convert(two, tmp_path / "b.tflite", scheme="float32")
    with pytest.raises(ValueError, match="does not say what its outputs are"):
        serve(odd, cache=no_litert_js)
    monkeypatch.setenv("PATH", "")
    good = convert(tiny, tmp_path / "a.tflite", scheme="float32")
    with pytest.raises(ValueError, match=r"install Node\.js"):
        serve(good, cache=tmp_path)
    assert not list(tmp_path.glob("litertjs*"))


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_finds_the_objects_that_kzoo_finds():
    """Boxes that reach over the image's edge, crowd, or lie outside of it."""
    random = np.random.default_rng(0)
    anchors = np.sort(random.uniform(0, 1, (60, 2, 2)), axis=1).reshape(60, 4).astype("float32")
    codes = random.normal(0, 4, (1, 60, 4)).astype("float32")
    codes[0, :2, :2] = 60, -60  # outside
    scores = random.uniform(0, 1, (1, 60, 2)).astype("float32")
    scores[0, :2] = [[0.99, 0.98], [0.97, 0.96]]
    text = (Path(serve_page.__file__).parent / "serve.html").read_text()
    parts = [re.search(rf"^function {name}\(.*?^}}$", text, re.M | re.S)[0]
             for name in ("fromAnchors", "voted", "iou")]  # fmt: skip
    about = {"anchors": anchors.tolist(), "scales": [10, 10, 5, 5], "threshold": 0.3}
    given = {"boxes": codes.ravel().tolist(), "scores": scores.ravel().tolist()}
    page = f"""const MOST_BOXES = 20, OVERLAP = 0.55, about = {json.dumps(about)};
        {"".join(parts)}
        console.log(JSON.stringify(fromAnchors({json.dumps(given)})))"""
    done = subprocess.run(["node", "-"], input=page, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    (found,) = detections({"boxes": codes, "scores": scores}, anchors, score_threshold=0.3,
                          max_detections=20)  # fmt: skip
    assert [one["label"] for one in shown] == found.labels.tolist()
    np.testing.assert_allclose([one["score"] for one in shown], found.scores, atol=1e-6)
    np.testing.assert_allclose([one["box"] for one in shown], found.boxes, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
def test_the_browser_says_what_runner_says(tiny, unseen, tmp_path, started, request):
    images, names = unseen[0][:3], []
    for i, image in enumerate(images):
        names.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(names[-1])
    file = convert(tiny, tmp_path / "a.tflite", calibration=unseen[0][:40], labels=list("abcdef"))
    cache = request.config.cache.mkdir("litertjs")
    try:
        port = started(file, names, cache=cache)
    except ValueError as error:
        pytest.skip(str(error))
    with Page(f"http://127.0.0.1:{port}/") as page:
        assert page.wait("document.body.dataset.state") == "ready"
        shown = page.value(
            "[...document.querySelectorAll('figure')].reverse().map((figure) => "
            "[...figure.querySelectorAll('li')].map((item) => "
            "[item.firstChild.textContent, Number(item.dataset.share)]))"
        )
        page.value("document.getElementById('camera').click()")  # a fake one
        assert page.wait("document.querySelector('figcaption').textContent.endsWith(' ms')")
    assert len(shown) == 3
    for rows, scores in zip(shown, Runner(file)(images), strict=True):
        order = np.argsort(-scores)[: len(rows)]
        assert [label for label, _ in rows] == ["abcdef"[i] for i in order]
        np.testing.assert_allclose([share for _, share in rows], scores[order], atol=0.02)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
def test_a_photo_gives_the_page_the_scores_of_predict(tiny, tmp_path, started, request):
    """Sizes that shrink and grow, a turned photo and a transparent one."""
    random = np.random.default_rng(0)
    kinds = [("png", 500, 333), ("png", 40, 50), ("webp", 200, 301), ("jpg", 120, 90)]
    paths = []
    for suffix, width, height in kinds:
        rough = random.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
        photo = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(tmp_path / f"{width}.{suffix}")
        options = {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
        photo.save(paths[-1], **options)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    paths.append(tmp_path / "turned.jpg")
    photo.save(paths[-1], quality=95, exif=turned)
    paths.append(tmp_path / "transparent.png")
    photo.putalpha(Image.fromarray(np.arange(90 * 120, dtype=np.uint16).reshape(90, 120) % 256)
                   .convert("L"))  # fmt: skip
    photo.save(paths[-1])
    file = convert(tiny, tmp_path / "a.tflite", scheme="float32", labels=list("abcdef"))
    try:
        port = started(file, paths, cache=request.config.cache.mkdir("litertjs"))
    except ValueError as error:
        pytest.skip(str(error))
    side = 64
    with Page(f"http://127.0.0.1:{port}/") as page:
        assert page.wait("document.body.dataset.state") == "ready"
        seen = [
            page.value(
                f"fetch('/image/{i}').then((r) => r.blob()).then(decoded)"
                ".then((image) => [...pixels(image)])"
            )
            for i in range(len(paths))
        ]
        shown = page.value(
            "[...document.querySelectorAll('figure')].reverse().map((figure) => "
            "Number(figure.querySelector('li').dataset.share))"
        )
    for path, values, share in zip(paths, seen, shown, strict=True):
        wanted = read_image(path, side)
        away = np.abs(np.reshape(values, wanted.shape) - wanted)
        # Decoders of JPEG differ by a little; all else is the same to the bit, but for what a
        # canvas loses where it mixes colours with white.
        most = {"120.jpg": 4, "turned.jpg": 4, "transparent.png": 2}.get(path.name, 0)
        assert away.max() <= most, path.name
        assert abs(share - Runner(file)(wanted).max()) < 0.01, path.name
