"""README and docs say what is true: tables are current, links lead somewhere, examples run."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import docs_pages as pages
import keras
import numpy as np
import pytest

import kzoo
import kzoo.tflite
from kzoo.recipes.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages.PAGES]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_TESTS = {"neighbours.md"}  # tests/neighbours runs its examples, in an environment of its own


def examples(page: Path) -> list[str]:
    """The Python code of a page, but for what needs data or weights: it is marked "py"."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert pages.rendered(text) == text, "stale: uv run python tests/docs_pages.py"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short_and_lists_every_command():
    assert len(README.split()) < 900
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `kzoo"))
    assert set(re.findall(r"`kzoo (\w+)", rows)) == set(COMMANDS)


@pytest.mark.slow
def test_the_readmes_model_trains():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 128, 128, 3)).astype("float32")
    names = {"images": images, "labels": rng.integers(0, 3, 8)}
    (code,) = (x for x in examples(ROOT / "README.md") if "model.fit(" in x)
    first, _, second = code.partition("backbone.trainable = True")
    exec(first, names)
    norm = names["backbone"].get_layer("row0_conv_bn")
    # The last kernel: of a net with random weights the first ones get next to no gradient.
    last = [x for x in names["backbone"].layers if isinstance(x, keras.layers.Conv2D)][-1]
    kernel = np.array(last.kernel)
    assert not np.any(norm.moving_mean)  # a frozen backbone keeps its statistics
    exec(f"backbone.trainable = True{second}", names)
    assert not np.any(norm.moving_mean)  # and frozen batch norms do, beside layers that learn
    assert np.any(np.array(last.kernel) != kernel)
    assert np.isfinite(names["model"].history.history["loss"]).all()


@pytest.mark.slow
def test_the_readmes_model_becomes_int8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype("float32")
    model = kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=3)
    names = {"keras": keras, "kzoo": kzoo, "model": model, "images": images}
    (code,) = (x for x in examples(ROOT / "README.md") if "kzoo.quantize(" in x)
    exec(code, names)
    assert (tmp_path / "model.tflite").exists()
    assert np.isfinite(names["student"].history.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.values[0].parent.name == "docs"])
def test_the_examples_run(page, tmp_path, monkeypatch):
    if page.name in OWN_TESTS or not examples(page):
        return
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sides = {"detect.md": 320, "segment.md": 256}
    side = sides.get(page.name, 64)
    names = {
        "keras": keras,
        "kzoo": kzoo,
        "np": np,
        "images": rng.integers(0, 256, (2, side, side, 3)).astype("float32"),
        "boxes": np.float32([[[0.1, 0.2, 0.5, 0.6]], [[0, 0, 0, 0]]]),
        "boxes_of_all_images": np.float32([[0.1, 0.2, 0.14, 0.25], [0.3, 0.3, 0.7, 0.8]] * 10),
        "labels": np.int32([[3], [-1]]),
        "masks": rng.integers(0, 2, (2, side, side), dtype="uint8"),
    }
    for code in examples(page):
        exec(code, names)


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    raw = [page for page in tmp_path.rglob("*.html") if "```" in page.read_text("utf-8")]
    assert not raw  # a code block that the site does not know shows all after it as it is written
    assert (
        "kzoo.quantize" in (tmp_path / "api" / "index.html").read_text()
        or "quantize" in (tmp_path / "api" / "index.html").read_text()
    )
