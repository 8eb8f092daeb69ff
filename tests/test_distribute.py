"""Several processes train what one would have, and any of them may die."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from loopback import addresses as free_addresses

from kzoo.recipes import distributed as distribute
from kzoo.recipes.classify import Config
from kzoo.recipes.data.augment import Batches

TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture
def start(tmp_path):
    """`start(folder, processes, ...)`: the processes of a toy run, which end with the test."""
    started = []
    # The runs share what XLA compiles, which is half of their CPU.
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip

    def begin(folder, processes, *arguments):
        folder.mkdir(exist_ok=True)
        addresses = free_addresses(processes) if processes > 1 else ""
        for rank in range(processes):
            words = [sys.executable, TOY, folder, addresses, rank, *arguments]
            with (folder / f"said-{rank}.txt").open("w") as output:
                started.append(
                    subprocess.Popen(
                        list(map(str, words)), stdout=output, stderr=subprocess.STDOUT,
                        env=os.environ | kept,
                    )
                )  # fmt: skip
        return started[-processes:]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def outcome(process, folder):
    output = (process.wait(timeout=300), (folder / "said-0.txt").read_text())
    assert output[0] == 0, output[1]
    return json.loads(output[1].splitlines()[-1])


def shown(folder):
    """(Epoch, step, image), as often as it was made ready."""
    return [line for file in folder.glob("seen-*.txt") for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_one_of_two_is_killed_and_one_alone_ends_as_if_nothing_had_been(start, tmp_path):
    pytest.importorskip("jax")
    (alone,) = start(tmp_path / "alone", 1)
    expected = outcome(alone, tmp_path / "alone")

    folder = tmp_path / "killed"
    first, second = start(folder, 2, 1e-4, 0.3)  # keeps a state after every step, of .3 s and more
    deadline = time.monotonic() + 300  # of a machine with much else to do
    while not list(folder.glob("toy-0000-00000[23]")):
        assert first.poll() is None, (folder / "said-0.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second.terminate()  # as schedulers do first; tests/bench/distributed.py kills
    assert second.wait(timeout=10) == -signal.SIGTERM
    killed = time.monotonic()
    assert first.wait(timeout=2 * distribute.HEARTBEAT_SECONDS)
    assert time.monotonic() - killed < distribute.HEARTBEAT_SECONDS
    output = (folder / "said-0.txt").read_text()
    # JAX may be quicker to say so than kzoo.
    assert "another process has ended" in output or "another task died" in output
    assert not (folder / "done.keras").exists()

    (resumed,) = start(folder, 1)
    got = outcome(resumed, folder)
    for row, want in zip(got["history"], expected["history"], strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert row[key] == pytest.approx(want[key], rel=1e-3), (key, row["epoch"])
    assert got["weights"] == pytest.approx(expected["weights"], rel=1e-3)
    assert set(shown(folder)) == set(shown(tmp_path / "alone"))


def batches(count, devices=1, process=0, processes=1):
    examples, targets = np.arange(count, dtype="float32")[:, None], np.arange(count) % 3
    data = Batches(examples, targets, classes=3, batch_size=8)
    return data.shuffled(0, 5).shared(process, processes, devices)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_image_counts_once_whatever_the_number_of_processes(processes):
    """22 images: the last batch has 6, which four cannot share."""
    whole = batches(22)
    parts = [batches(22, processes, i, processes) for i in range(processes)]
    assert {len(part) for part in parts} == {3}
    seen = []
    for i in range(3):
        counted = np.concatenate([part.chosen(i)[part.counted(i)] for part in parts])
        np.testing.assert_array_equal(counted, whole.chosen(i))
        assert len({len(part.chosen(i)) for part in parts}) == 1  # as many rows in each
        seen += counted.tolist()
    assert sorted(seen) == list(range(22))


def test_the_loss_of_a_batch_that_was_filled_up_is_that_of_its_images():
    loss, random = keras.losses.CategoricalCrossentropy(), np.random.default_rng(0)
    guesses = random.uniform(0.1, 1, (22, 3)).astype("float32")
    x, y = batches(22)[2]
    expected = float(loss(y, guesses[x[:, 0].astype(int)]))
    parts = [batches(22, 4, i, 4)[2] for i in range(4)]
    x, y, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert len(x) == 8
    assert float(loss(y, guesses[x[:, 0].astype(int)], weights)) == pytest.approx(expected)


def test_an_epoch_goes_on_after_a_step():
    for i in range(2):
        np.testing.assert_array_equal(batches(22).after(1).chosen(i), batches(22).chosen(i + 1))
    assert len(batches(22).after(1)) == 2


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"rank": 1}, "rank=1 needs distribute"),
            ({"distribute": "auto", "rank": 1}, "rank goes with addresses"),
            ({"distribute": "here"}, "HOST:PORT of every process.*'here'"),
            ({"distribute": "a:1,b:2"}, "rank must be from 0 to 1.*None"),
            ({"distribute": "a:1,b:2", "rank": 2}, "rank must be from 0 to 1.*2"),
            ({"distribute": "a:1,b:2,c:3", "rank": 0}, "3 devices cannot share.*32"),
            ({"accumulate": 3}, "batch_size must be a multiple of accumulate.*32.*3"),
            ({"accumulate": 0}, "accumulate must be at least 1"),
            ({"damaged": "eat"}, "damaged must be one of refuse, skip.*'eat'"),
        ],
    )
    def test_that_make_no_sense_are_refused(self, monkeypatch, options, complaint):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match=complaint):
            Config("data", **options)

    @pytest.mark.parametrize("backend", ["tensorflow", "torch"])
    def test_other_backends_are_told_what_to_do(self, monkeypatch, backend):
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        with pytest.raises(ValueError, match=f"runs on {backend}.*KERAS_BACKEND=jax"):
            Config("data", distribute="auto")

    def test_what_is_said_where_processes_are_started_for_us(self, monkeypatch):
        assert distribute.job("auto", None) is None  # alone
        monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "a:1")
        monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "4")
        monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "3")
        found = distribute.job("auto", None)
        assert found == {"coordinator_address": "a:1", "num_processes": 4, "process_id": 3}
        monkeypatch.delenv("KERAS_DISTRIBUTION_JOB_ADDRESSES")
        for name, value in zip(distribute.SLURM, ("7", "n[1-2]", "2", "1", "0"), strict=True):
            monkeypatch.setenv(name, value)
        assert distribute.job("auto", None) == {}  # JAX reads SLURM's

    def test_where_a_run_is_carried_out_is_no_setting_of_it(self, tmp_path, monkeypatch):
        """Another process, or another number of them, finds its own run."""
        from kzoo.recipes.training.run_folder import open_run

        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        out = str(tmp_path / "run")
        for options in ({}, {"distribute": "a:1,b:2", "rank": 1, "save_every": 3.0}):
            open_run(Config("data", out=out, **options), ("a", "b"))
        with pytest.raises(ValueError, match="accumulate=1, not 2"):
            open_run(Config("data", out=out, accumulate=2), ("a", "b"))
