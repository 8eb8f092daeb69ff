"""Models and runs that an earlier kzoo saved load, and go on as they would have there."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import tiny
from golden.killed_run import SETTINGS
from golden.saved_files import outputs_of

import kzoo.recipes
from kzoo.recipes.cli import main
from kzoo.recipes.inputs import require_ended
from kzoo.registry import MODELS

SAVED = Path(__file__).parent / "golden" / "saved"
FILES = sorted(path.stem for path in SAVED.glob("*.keras"))
TRAINED = {"distilled": "student", "segmenter": "none"}  # where their own weights are


def test_goldens_are_small():
    files = [path for path in SAVED.rglob("*") if path.is_file()]
    assert len(FILES) == 6
    assert max(path.stat().st_size for path in files) <= 50_000


@pytest.mark.backend
@pytest.mark.parametrize("name", FILES)
def test_a_saved_model_gives_what_it_gave(name):
    model = keras.saving.load_model(SAVED / f"{name}.keras")
    with np.load(SAVED / f"{name}.npz") as expected:
        found = outputs_of(model, expected["x"].astype("float32"))
        assert found.keys() == expected.keys() - {"x", "y", "loss", "weights"}
        for key, value in found.items():
            scale = np.abs(expected[key]).max()
            np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.backend
@pytest.mark.parametrize(("name", "inner"), TRAINED.items())
def test_a_saved_model_goes_on_training(name, inner):
    """With the loss, the metrics and the optimizer's state that it was saved with."""
    model = keras.saving.load_model(SAVED / f"{name}.keras")
    with np.load(SAVED / f"{name}.npz") as expected:
        x = expected["x"].astype("float32")
        found = model.train_on_batch(x, expected["y"], return_dict=True)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        weights = np.concatenate([w.ravel() for w in getattr(model, inner, model).get_weights()])
        np.testing.assert_allclose(weights, expected["weights"], rtol=1e-3, atol=1e-5)


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A function from a run's name to its folder, beside its images, where one stands then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", tiny.classifier)
    tiny.draw(Path("images"))

    def copied(name: str) -> Path:
        return shutil.copytree(SAVED / name, Path("run"))

    return copied


# How near the losses of a stage come to those that the run would have had. Training in int8 goes on
# from the checkpoint, and a last bit that rounds otherwise grows. What is quantized anew is of the
# quantizer as it is now.
LIMITS = {
    "run": {"whole": 1e-4, "ptq": 0.02, "qat": 0.02},
    "run-qat": {"whole": 1e-4, "ptq": 0.02, "qat": 5e-3},
}


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it was begun on TensorFlow")
@pytest.mark.parametrize("name", LIMITS)
def test_a_killed_run_ends_as_it_would_have(name, killed, capsys, monkeypatch):
    monkeypatch.setattr("kzoo.recipes.data.augment.OPENCV", False)  # Pillow changed its images
    run = killed(name)
    # Options whose defaults were others:
    since = {"normalize_kernels": False, "train_scale": 1.0, "qat": "always", "cotuning": 0.0}
    results = kzoo.recipes.classify("images", **SETTINGS, **since, out=str(run))
    assert "resuming at epoch" in capsys.readouterr().out
    found, expected = (
        json.loads((folder / "history.json").read_text()) for folder in (run, SAVED / f"{name}-end")
    )
    for got, want in zip(found, expected, strict=True):
        assert (got["stage"], got["epoch"]) == (want["stage"], want["epoch"])
        limit = LIMITS[name][want["stage"]]
        for key in ("val_loss", "val_accuracy"):
            assert got[key] == pytest.approx(want[key], rel=limit), (key, got["stage"])
    kept, wanted = (
        json.loads((folder / "results.json").read_text()) for folder in (run, SAVED / f"{name}-end")
    )
    assert kept["float_accuracy"] == wanted["float_accuracy"] == results.float_accuracy
    for key in ("int8_accuracy", "agreement"):
        assert kept[key] == pytest.approx(wanted[key], abs=1 / 24)  # one image of the validation
    assert results.chosen in ("ptq", "qat")


def test_a_run_that_has_not_ended_says_so(killed):
    run = killed("run")
    with pytest.raises(ValueError, match=r"run has no model yet: it stopped in stage whole, epoch"):
        require_ended(run)
    (run / "checkpoint" / "stages.json").write_text('["head", "whole", "qat"]')
    with pytest.raises(
        ValueError, match=r"stage 2 \(whole\), epoch 4; run the same command to resume"
    ):
        require_ended(run)
    (run / "checkpoint" / "whole-0002").rename(run / "checkpoint" / "whole-0003-000120")
    with pytest.raises(ValueError, match=r"stopped in stage 2 \(whole\), epoch 4;"):
        require_ended(run)
    (run / "checkpoint" / "stages.json").write_text('["whole", "qat"]')
    with pytest.raises(ValueError, match="stopped in stage 1") as stopped:
        require_ended(run)
    page = Path(__file__).parent.parent / "docs" / "classify.md"
    assert f'"{stopped.value}"' in " ".join(page.read_text(encoding="utf-8").split())
    (run / "checkpoint" / "stages.json").write_text('["head", "whole", "qat"]')
    (run / "checkpoint" / "2-whole.keras").touch()
    with pytest.raises(ValueError, match=r"stopped after stage 2 \(whole\)"):
        require_ended(run)
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(ValueError, match="stopped before its first checkpoint"):
        require_ended(run)
    (run / "model.keras").touch()
    require_ended(run, "model.keras")
    with pytest.raises(ValueError, match="is not a kzoo run folder"):
        require_ended(run.parent)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "run", "images/val/red/02.bmp"], ["compare", "run"], ["sensitivity", "run"],
        ["convert", "run", "a.tflite"], ["android", "run"], ["serve", "run"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_commands_on_a_run_that_has_not_ended(words, killed, capsys):
    killed("run")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert err.startswith("kzoo: run has no model yet: it stopped in stage whole, epoch 4; run ")
    assert out == ""
