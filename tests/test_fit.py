"""Training stages: stopped anywhere, they go on and end as if nothing had happened."""

import ctypes
import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo.files
from kzoo.recipes.data.augment import Augment, Batches, warp
from kzoo.recipes.training import checkpoints, memory
from kzoo.recipes.training import stages as fitting
from kzoo.recipes.training.memory import (
    MMAP_THRESHOLD,
    TRIM_THRESHOLD,
    keep_freed_memory,
    release_freed_memory,
)
from kzoo.recipes.training.stage import Stage, best_epoch
from kzoo.recipes.training.stages import balanced, finished_stage, fit, split_at

TOY = {"loss": "categorical_crossentropy", "metrics": ["accuracy"]}
STAGE = Stage("toy", epochs=4, learning_rate=0.3, **TOY, metric="val_accuracy")


def data(count=48, seed=0):
    """Three clusters in the plane that a linear model can tell apart."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count)
    centres = np.array([[0, 2], [2, -1], [-2, -1]], dtype="float32")
    examples = centres[targets] + rng.normal(0, 0.5, (count, 2)).astype("float32")
    return Batches(examples, targets, classes=3, batch_size=8)


def net():
    keras.utils.set_random_seed(0)
    chain = [keras.Input((2,)), keras.layers.Dropout(0.2, seed=3), keras.layers.Dense(3)]
    return keras.Sequential([*chain, keras.layers.Activation("softmax")])


def page_faults() -> int:
    """Return how often the system maps a page while 40 blocks of 2 MB are filled and freed."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        np.ones(2 << 20, "uint8")
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc on Linux")
def test_freed_memory_stays_with_a_process_that_trains(tmp_path):
    # A process of its own: what earlier tests have freed would serve this one's blocks.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_fit; test_fit.train_and_count()"
    )
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def train_and_count() -> None:
    """Train with malloc set as TensorFlow sets it, and count page faults before and after."""
    as_tensorflow_sets_it = {MMAP_THRESHOLD: 128 << 10, TRIM_THRESHOLD: 128 << 10}
    for parameter, value in as_tensorflow_sets_it.items():
        assert ctypes.CDLL(None).mallopt(parameter, value) == 1
    assert page_faults() > 40 * 400  # each page of 4 kB of each block
    run(Path.cwd())
    assert page_faults() < 2000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc on Linux")
def test_freed_memory_is_released():
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    blocks = [np.ones(12_500) for _ in range(2000)]  # 100 kB each: of the heap
    last = np.ones(12_500)  # above them, so that the heap's end stays
    before = resident_mb()
    del blocks
    release_freed_memory()
    assert resident_mb() < before - 150
    assert last.sum() == 12_500


def test_no_memory_is_kept_where_the_system_has_no_mallopt(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    assert not release_freed_memory()


class StoppedError(Exception):
    pass


def run(folder, stop_at=None, stage=STAGE):
    train = data()

    def epoch_data(epoch):
        if epoch == stop_at:
            raise StoppedError
        return train.shuffled(0, epoch)

    return fit(net(), stage, epoch_data, data(seed=1), folder)


@pytest.mark.backend
@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_a_stopped_stage_ends_as_it_would_have(tmp_path, ema):
    stage = dataclasses.replace(STAGE, ema=ema)
    whole, expected = run(tmp_path / "whole", stage=stage)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", stop_at=2, stage=stage)
    kept = checkpoints.latest(tmp_path / "stopped", "toy")
    assert kept.name == "toy-0001"
    resumed, history = run(tmp_path / "stopped", stage=stage)
    for got, want in zip(history, expected, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert got[key] == pytest.approx(want[key], rel=1e-5), (key, got["epoch"])
    for got, want in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert expected[-1]["val_accuracy"] > 0.9  # and it learnt something


@pytest.mark.backend
def test_stopped_within_an_epoch_it_goes_on_from_there(tmp_path, monkeypatch):
    """In the middle of an update, too: after 15 steps, of which four make one."""
    stage = dataclasses.replace(STAGE, epochs=3, save_every=1e-9, accumulate=4)
    asked = []

    class Noted(Batches):
        def after(self, steps):
            asked.append(steps)
            return super().after(steps)

    def go(folder):
        train = data()
        train.__class__ = Noted
        return fit(net(), stage, lambda epoch: train.shuffled(0, epoch), data(seed=1), folder)

    def stop_after(model, history, target, *rest):
        write(model, history, target, *rest)
        if target.name == "toy-0002-000003":
            raise StoppedError
        return target

    whole, expected = go(tmp_path / "whole")
    write = checkpoints.write_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_checkpoint", stop_after)
        with pytest.raises(StoppedError):
            go(tmp_path / "stopped")
    assert checkpoints.latest(tmp_path / "stopped", "toy").name == "toy-0002-000003"
    asked.clear()
    resumed, history = go(tmp_path / "stopped")
    assert asked == [3]  # of six steps the other three
    for got, want in zip(history, expected, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert got[key] == pytest.approx(want[key], rel=1e-4), (key, got["epoch"])
    for got, want in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.backend
def test_the_mean_of_the_weights_is_kept_and_training_goes_on_without_it(tmp_path, monkeypatch):
    """The mean is made here by hand, of the weights that the same training without one takes."""
    seen = []

    class Noted(fitting.CheckpointCallback):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if keras.backend.backend() == "jax":  # holds them elsewhere while it trains
                self.model.jax_state_sync()
            seen.append(self.model.get_weights())

    last = dataclasses.replace(STAGE, metric="epoch")
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "CheckpointCallback", Noted)
        run(tmp_path / "plain", stage=last)
    mean = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        momentum = min(0.6, (1 + step) / (10 + step))  # .6 from step 13 on
        mean = [momentum * m + (1 - momentum) * w for m, w in zip(mean, weights, strict=True)]
    averaged, _ = run(tmp_path / "mean", stage=dataclasses.replace(last, ema=0.6))
    for got, want, own in zip(averaged.get_weights(), mean, seen[-1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        assert not np.allclose(got, own, rtol=1e-3)


@pytest.mark.backend
def test_a_batch_in_parts_makes_the_update_of_the_whole():
    """Keras averages the gradients of the parts; no part differs from the whole but in size."""
    updates = []
    for accumulate in (1, 2):
        model = net()
        stage = dataclasses.replace(STAGE, accumulate=accumulate, warmup=0.0)
        fitting.compile_stage(model, stage, 1000)
        rows, targets = data(8)[0]
        size = 8 // accumulate
        for k in range(accumulate):
            part = slice(k * size, (k + 1) * size)
            model.layers[0].rate = 0
            model.train_on_batch(rows[part], targets[part])
        updates.append(model.get_weights())
    for one, other in zip(*updates, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.backend
def test_a_write_that_fails_leaves_the_epoch_before(tmp_path, monkeypatch):
    def full(source, target):
        if source.name == ".part-toy-0001":
            raise OSError(28, "No space left on device")
        replace(source, target)

    replace = kzoo.files.os.replace
    with monkeypatch.context() as patch:
        patch.setattr(kzoo.files.os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    assert checkpoints.latest(tmp_path, "toy").name == "toy-0000"
    _, history = run(tmp_path)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]


@pytest.mark.backend
def test_a_loss_that_is_no_number_ends_the_stage_and_what_was_good_stays(tmp_path):
    """A checkpoint after every step: none may be of the weights that have become nan."""
    stage = dataclasses.replace(STAGE, save_every=1e-9)
    sound, broken = data(), data()
    broken.examples[broken.shuffled(0, 1).chosen(3)[0]] = np.nan  # the fourth batch
    sets = [sound, broken]
    with pytest.raises(ValueError, match=r"the loss is nan. Lower the learning rate of 0\.3"):
        fit(net(), stage, lambda e: sets[e].shuffled(0, e), data(seed=1), tmp_path)
    kept = checkpoints.latest(tmp_path, "toy")
    assert kept.name == "toy-0001-000003"
    model = keras.saving.load_model(kept / "model.keras")
    assert all(np.isfinite(w).all() for w in model.get_weights())
    _, history = fit(net(), stage, lambda e: sound.shuffled(0, e), data(seed=1), tmp_path)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]


def test_checkpoints_that_a_killed_run_had_no_time_to_remove_go(tmp_path):
    model, older = net(), tmp_path / "toy-0000"
    older.mkdir()
    (tmp_path / "other-0000").mkdir()
    checkpoints.write_checkpoint(model, [], tmp_path / "toy-0002", None, model.get_weights())
    assert {p.name for p in tmp_path.iterdir()} == {"toy-0002", "other-0000"}


def test_memory_that_a_step_takes_by_hand(monkeypatch):
    """Outputs 192 and 128 numbers an image, 8 parameters: 2,176 bytes an image and 128."""
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(image))
    monkeypatch.setattr(memory, "on_accelerator", lambda: False)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10_000)
    memory.require_memory(model, 4, 8)
    with pytest.raises(ValueError, match=r"10 images of 8 px .*: --batch-size 4 fits; a smaller"):
        memory.require_memory(model, 10, 8)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    with pytest.raises(ValueError, match="no batch size fits; a smaller --size"):
        memory.require_memory(model, 1, 8)
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.require_memory(model, 10**9, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limit_of_the_address_space_counts(monkeypatch):
    most = memory.free_bytes()
    assert most > 1 << 26
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = taken + (1 << 26), memory.resource.RLIM_INFINITY
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: limit)
    assert memory.free_bytes() == pytest.approx(1 << 26, abs=1 << 24)


def test_a_teacher_is_asked_about_the_very_images_that_come():
    shown = data().shuffled(0, 3)
    teacher = net()
    for examples, targets in (shown.taught(teacher)[i] for i in range(len(shown))):
        np.testing.assert_allclose(targets, teacher.predict(examples, verbose=0), rtol=1e-5)


def test_the_best_epoch_is_the_most_accurate_then_the_one_of_least_loss():
    rows = [(0.5, 1.0), (0.9, 0.5), (0.9, 0.4), (0.8, 0.1)]
    history = [{"val_accuracy": a, "val_loss": b} for a, b in rows]
    assert best_epoch(history, STAGE) == 2
    assert best_epoch(history, Stage("toy", 4, 0.3)) == 3  # by the loss alone


def test_what_is_measured_after_an_epoch_ranks_it(tmp_path):
    found = iter([0.1, 0.9, 0.5, 0.2])
    stage = Stage("toy", 4, 0.3, **TOY, metric="score", patience=2)
    train = data()
    _, history = fit(
        net(), stage, lambda e: train.shuffled(0, e), data(seed=1), tmp_path,
        measure=lambda model: {"score": next(found)},
    )  # fmt: skip
    assert [row["score"] for row in history] == [0.1, 0.9, 0.5, 0.2]
    assert best_epoch(history, stage) == 1


def test_patience_ends_a_stage(tmp_path):
    stage = Stage("still", epochs=9, learning_rate=0.0, **TOY, patience=2)
    train = data()
    _, history = fit(net(), stage, lambda e: train.shuffled(0, e), data(seed=1), tmp_path)
    assert len(history) == 3  # the first, and two that are no better


def test_once_makes_a_thing_finished_stage(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return net(), [{"epoch": 0}]

    for _ in range(2):
        model, history = finished_stage(tmp_path / "a.keras", make)
        assert model.count_params() == 9
        assert history == [{"epoch": 0}]
    assert len(calls) == 1


@pytest.mark.backend
def test_unfreezing_reaches_every_layer():
    model = net()
    count = len(model.trainable_weights)
    for layer in model.layers:
        layer.trainable = False
    assert model.trainable  # and TensorFlow sees nothing to set
    fitting.unfreeze(model)
    assert len(model.trainable_weights) == count


def test_class_weights_give_each_class_the_same_share():
    targets = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced(targets, 3)
    shares = [weights[i] * (targets == i).sum() for i in range(3)]
    assert shares == pytest.approx([10 / 3] * 3)  # sklearn's "balanced": N / (classes * count)


@pytest.mark.backend
def test_a_split_model_computes_the_same():
    keras.utils.set_random_seed(1)
    for build in (kzoo.MobileNetV2, kzoo.MobileNetV3Small):
        model = build(0.35, input_shape=(32, 32, 3), classes=4)
        body, tail = split_at(model, "head_dropout")
        x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
        whole = model.predict(x, verbose=0)
        parts = tail.predict(body.predict(x, verbose=0), verbose=0)
        np.testing.assert_allclose(parts, whole, rtol=1e-5)
        # The copy is apart: training it leaves the model alone.
        tail.set_weights([w + 1 for w in tail.get_weights()])
        np.testing.assert_allclose(model.predict(x, verbose=0), whole, rtol=1e-5)


class TestAugment:
    image = np.arange(40 * 40 * 3, dtype="uint8").reshape(40, 40, 3)

    def test_zero_changes_nothing(self):
        still = Augment(zoom=0, stretch=0, turn=0, flip=False, colour=0)
        same = still(self.image, 40, np.random.default_rng(0))
        np.testing.assert_allclose(same, self.image, atol=1)

    def test_flip_mirrors(self):
        flip = Augment(zoom=0, stretch=0, turn=0, flip=True, colour=0)
        seen = [flip(self.image, 40, np.random.default_rng(seed)) for seed in range(8)]
        mirrored = [np.allclose(s, self.image[:, ::-1], atol=1) for s in seen]
        upright = [np.allclose(s, self.image, atol=1) for s in seen]
        assert any(mirrored)
        assert any(upright)
        assert all(a or b for a, b in zip(mirrored, upright, strict=True))

    def test_colours_change_as_said_one_step_after_the_other(self):
        """Against brightness, contrast and saturation in turn, in float64."""
        augment = Augment(zoom=0, stretch=0, turn=0, flip=False, colour=0.6)
        image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype="uint8")
        for seed in range(10):
            seen = augment.recolour(image, np.random.default_rng(seed))
            factors = np.random.default_rng(seed).uniform(0.4, 1.6, 3)
            wanted = image * factors[0]
            wanted = (wanted - wanted.mean()) * factors[1] + wanted.mean()
            grey = wanted.mean(axis=-1, keepdims=True)
            wanted = ((wanted - grey) * factors[2] + grey).clip(0, 255)
            assert seen.dtype == np.float32
            np.testing.assert_allclose(seen, wanted, atol=1e-3)  # of 255 levels

    def test_a_shrunk_image_is_wholly_seen(self):
        augment = Augment(zoom=0, shrink=0.5, stretch=0, turn=0, flip=False)
        rng = np.random.default_rng(0)
        places = [augment.place(100, 50, rng) for _ in range(200)]
        for place in places:  # from its first pixel to its last, at 1 to 1.5 times the scale
            assert (place @ [0, 0, 1] <= 1e-9).all()
            assert (place @ [50, 50, 1] >= 100 - 1e-9).all()
        scales = np.array([place[0, 0] / 2 for place in places])
        assert 1 <= scales.min() < 1.05
        assert 1.45 < scales.max() <= 1.5

    def test_an_image_moves_as_its_map_says(self):
        """Against bilinear interpolation at the places that the map names, in float64."""
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (40, 40, 3), dtype="uint8")
        places = np.stack(np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5), -1)
        for _ in range(5):
            place = Augment().place(40, 32, rng)
            x, y = np.moveaxis(places @ place[:, :2].T + place[:, 2], -1, 0) - 0.5
            inside = (x > 0) & (x < 38.9) & (y > 0) & (y < 38.9)
            left, top = x[inside].astype(int), y[inside].astype(int)
            fx, fy = (x[inside] - left)[:, None], (y[inside] - top)[:, None]
            upper = image[top, left] * (1 - fx) + image[top, left + 1] * fx
            lower = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
            wanted = upper * (1 - fy) + lower * fy
            assert inside.mean() > 0.8
            assert np.abs(warp(image, 32, place)[inside] - wanted).max() <= 1  # level of 255

    def test_batches_hold_what_the_augmentation_makes_of_each_image(self):
        images = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype="uint8")
        batches = Batches(
            images, np.zeros(5, int), classes=2, batch_size=4, augment=Augment(), size=24
        ).shuffled(3, 7)
        for i in range(2):
            for row, j in zip(batches[i][0], batches.chosen(i), strict=True):
                one = Augment()(images[j], 24, np.random.default_rng((3, 7, j)))
                np.testing.assert_array_equal(row, one)

    def test_the_same_seed_and_epoch_give_the_same_image(self):
        images = np.stack([self.image] * 6)
        batches = Batches(
            images, np.arange(6) % 2, classes=2, batch_size=4, augment=Augment(), size=24
        )
        a, b, c = batches.shuffled(0, 1)[0], batches.shuffled(0, 1)[0], batches.shuffled(0, 2)[0]
        np.testing.assert_array_equal(a[0], b[0])
        assert not np.array_equal(a[0], c[0])
        assert a[0].shape == (4, 24, 24, 3)
        assert a[0].dtype == np.float32
        assert a[0].min() >= 0
        assert a[0].max() <= 255
