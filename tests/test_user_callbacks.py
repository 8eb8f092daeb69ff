"""callbacks= and --tensorboard: a stage's fits look like one to Keras callbacks; --seeds."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.recipes import over_seeds
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.data.augment import Batches
from kzoo.recipes.evaluation.results import RunResults
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import fit
from kzoo.recipes.training.user_callbacks import checked_callbacks, with_tensorboard

STAGE = Stage("toy", 3, 0.3, "categorical_crossentropy", ["accuracy"], "val_accuracy")


def trained(folder: Path, callbacks, stage: Stage = STAGE):
    rng = np.random.default_rng(0)
    batches = Batches(rng.normal(size=(16, 2)), np.arange(16) % 2, classes=2, batch_size=8)
    chain = [keras.Input((2,)), keras.layers.Dense(2, "softmax", kernel_initializer="zeros")]
    return fit(
        keras.Sequential(chain), stage, lambda epoch: batches.shuffled(0, epoch), batches, folder,
        measure=lambda model: {"val_map": 0.5}, callbacks=checked_callbacks(callbacks),
    )  # fmt: skip


@pytest.mark.backend
def test_a_callback_sees_one_fit_of_the_stage_with_all_that_was_measured(tmp_path):
    seen = []

    class Noted(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(("begin", self.params["epochs"], self.params["steps"]))

        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            assert {"loss", "accuracy", "val_loss", "val_accuracy", "val_map"} <= set(logs)
            seen.append(("epoch", epoch))

        def on_train_end(self, logs=None):
            seen.append("end")

    trained(tmp_path, lambda stage: [Noted()] if stage == "toy" else [])
    epochs = [entry for epoch in range(3) for entry in (0, 1, ("epoch", epoch))]
    assert seen == [("begin", 3, 2), *epochs, "end"]


def test_a_callback_may_end_the_stage(tmp_path):
    stop = keras.callbacks.EarlyStopping("val_map", mode="max", patience=1)  # which never rises
    history = trained(tmp_path, [stop])[1]
    assert [row["epoch"] for row in history] == [0, 1]


def test_what_is_no_callback_is_refused():
    with pytest.raises(ValueError, match=r"keras\.callbacks\.Callback objects.*Received: 'csv'"):
        checked_callbacks(["csv"])
    with pytest.raises(ValueError, match="Received: 3"):
        checked_callbacks(lambda stage: [3])("head")
    alone = keras.callbacks.EarlyStopping("val_map")
    with pytest.raises(ValueError, match=r"must be a list of .*Received: <.*EarlyStopping"):
        checked_callbacks(alone)
    with pytest.raises(ValueError, match=r"must be a list of .*Received: <.*EarlyStopping"):
        checked_callbacks(keras.callbacks.EarlyStopping)("head")
    with pytest.raises(ValueError, match="Received: 3"):
        checked_callbacks(3)


def test_callbacks_may_be_none_and_an_iterator_is_kept():
    """An iterator was used up by the check, and no stage had its callbacks."""
    assert not checked_callbacks(lambda stage: None)("head")
    assert not checked_callbacks(None)("head")
    given = [keras.callbacks.TerminateOnNaN()]
    of_stage = checked_callbacks(iter(given))
    assert [*of_stage("head")] == [*of_stage("whole")] == given


def test_tensorboard_reads_the_figures_of_each_stage(tmp_path):
    tf = pytest.importorskip("tensorflow")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    callbacks = with_tensorboard(checked_callbacks([]), str(tmp_path / "board"))
    history = trained(tmp_path / "run", callbacks)[1]
    for part, key in (("train", "loss"), ("validation", "val_map")):
        events = accumulator.EventAccumulator(str(tmp_path / "board" / "toy" / part)).Reload()
        name = f"epoch_{key.removeprefix('val_')}"
        values = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(name)]
        assert [e.step for e in events.Tensors(name)] == [0, 1, 2]
        assert np.ravel(values) == pytest.approx([row[key] for row in history])


def test_tensorboard_that_is_missing_is_told_at_once(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'kzoo\[tensorboard\]'"):
        ClassifyConfig("photos", tensorboard="board")


def test_a_place_that_takes_no_event_files_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "board"):
        with pytest.raises(ValueError, match=r"tensorboard must be a folder.*file is a file"):
            ClassifyConfig("photos", tensorboard=str(folder))
    with pytest.raises(ValueError, match=r"must be a folder to write to\. Received: ''"):
        ClassifyConfig("photos", tensorboard="")
    assert ClassifyConfig("photos", tensorboard=str(tmp_path / "new" / "board")).tensorboard
    assert not (tmp_path / "new").exists()


def test_event_files_of_each_seed_have_a_folder_of_their_own(tmp_path):
    """In one, the curves of a stage would be those of all seeds."""
    seen = []

    def recipe(data, *, seed, out, tensorboard):
        seen.append(tensorboard)
        return drawn(data, seed=seed, out=out, epochs=1)

    over_seeds(recipe, "photos", seeds=2, out=str(tmp_path), tensorboard="board")
    assert seen == [str(Path("board") / "seed-0"), str(Path("board") / "seed-1")]


def drawn(data, *, seed, out, epochs):
    """A recipe that measures what its seed is."""
    figures = {"float": {"accuracy": 0.5 + seed / 10, "confusion": [[1]]}}
    return RunResults(folder=Path(out), val=figures, test=figures)


def test_seeds_are_told_as_mean_and_spread(tmp_path):
    found = over_seeds(drawn, "photos", seeds=3, seed=1, out=str(tmp_path), epochs=2)
    assert [run.folder.name for run in found.runs] == ["seed-1", "seed-2", "seed-3"]
    spread = found.spreads["val float accuracy"]
    assert (spread.mean, spread.std) == pytest.approx((0.7, 0.1))  # of .6, .7, .8
    assert "test float accuracy" in str(found)
    assert "0.700 ± 0.100 (0.600, 0.700, 0.800)" in str(found)
    kept = json.loads((tmp_path / "seeds.json").read_text())
    assert kept["test float accuracy"]["values"] == pytest.approx([0.6, 0.7, 0.8])


def test_a_figure_that_a_seed_lacks_has_no_spread(tmp_path):
    """No small objects among one seed's validation images, say."""

    def recipe(data, *, seed, out):
        figures = {"float": {"map": 0.5 + seed / 10, "small": 0.2 if seed else None}}
        return RunResults(folder=Path(out), val=figures)

    assert [*over_seeds(recipe, "photos", out=str(tmp_path)).spreads] == ["val float map"]


def test_seeds_need_two_and_a_folder_of_their_own(tmp_path):
    with pytest.raises(ValueError, match="seeds must be a whole number, at least 2"):
        over_seeds(drawn, "photos", seeds=1)
    with pytest.raises(ValueError, match=r"seeds must be a whole number.*'3'"):
        over_seeds(drawn, "photos", seeds="3")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run of one seed"):
        over_seeds(drawn, "photos", out=str(tmp_path))
