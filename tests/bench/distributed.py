"""What several processes train against what one does, and what is left where one is killed.

    uv run python tests/bench/distributed.py [--weights FILE]     half an hour on two cores
    uv run python tests/bench/distributed.py --kills 0            the first half alone
    uv run python tests/bench/distributed.py --no-training        the second

Loopback, JAX on CPU, gloo. A MobileNetV3-Small 0.5 at 64 px (with FILE, its weights, also one at
1.0), a global batch of 32, 20 steps from the same seed by 1, 2 and 4 processes, and by one whose
weights begin 1e-7 away, which shows what rounding alone comes to; then kill -9 of a random one of
two, at any moment of tests/toy_run.py, again and again, resumed by one, two or four in turn.
"""

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopback import addresses as free_addresses

os.environ["KERAS_BACKEND"] = "jax"
STEPS, BATCH, SIDE, CLASSES = 20, 32, 64, 5
CASES = {  # rate, momentum (0: Adam), numbers
    "SGD, from random weights": (2e-3, 0.9, "float32"),
    "Adam, from random weights": (2e-3, 0.0, "float32"),
    "Adam, from random weights, float64": (2e-3, 0.0, "float64"),
    "Adam, from pretrained weights": (4e-4, 0.0, "float32"),
}
APART = 1e-7  # about what a float32 is rounded by
TOY = Path(__file__).parents[1] / "toy_run.py"


def work(folder: Path, addresses: str, rank: int, apart: float, case: str, file: str) -> None:
    """One process: an epoch of 20 batches of drawn images; every step's loss is printed.

    Its weights begin as they are drawn or as in `file`, each times 1 + `apart` or 1 - `apart`.
    """
    rate, momentum, dtype = CASES[case]
    os.environ["JAX_ENABLE_X64"] = "1" if dtype == "float64" else "0"
    import keras
    import numpy as np

    import kzoo
    from kzoo.recipes import distributed as distribute
    from kzoo.recipes.data.augment import Augment, Batches
    from kzoo.recipes.programs.demo import SHAPES, draw
    from kzoo.recipes.training import stages as fitting

    rng = np.random.default_rng(0)
    count = STEPS * BATCH + 160
    targets = np.arange(count) % CLASSES
    shapes = list(SHAPES)
    images = np.stack([np.asarray(draw(shapes[t], rng).resize((72, 72))) for t in targets])
    train = Batches(
        images[:-160], targets[:-160], classes=CLASSES, batch_size=BATCH, augment=Augment(),
        size=SIDE,
    )  # fmt: skip
    val = Batches(images[-160:, 4:-4, 4:-4], targets[-160:], classes=CLASSES, batch_size=BATCH)
    means: list[float] = [0.0]  # of the steps so far, as Keras logs it

    class Noted(fitting.CheckpointCallback):
        def on_train_batch_end(self, batch, logs=None):
            means.append(float(logs["loss"]))

    fitting.CheckpointCallback = Noted
    keras.config.set_floatx(dtype)
    if dtype == "float64":  # which Keras would normalize in float32
        from keras.src.layers.normalization import batch_normalization

        exact = {**vars(keras.src.backend), "result_type": lambda *dtypes: dtype}
        batch_normalization.backend = types.SimpleNamespace(**exact)
    if momentum:
        sgd = functools.partial(keras.optimizers.SGD, momentum=momentum)
        keras.optimizers.Adam = sgd  # which is what a stage asks for
    stage = fitting.Stage("whole", 1, rate, "categorical_crossentropy", ["accuracy"])
    with distribute.joined(addresses or None, rank if addresses else None):
        keras.utils.set_random_seed(0)
        net = kzoo.MobileNetV3Small(
            1.0 if file else 0.5, input_shape=(SIDE, SIDE, 3), classes=CLASSES,
            norm_momentum=0.9, weights=file or None,
        )  # fmt: skip
        for layer in net.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = not file  # as `kzoo classify` has it
        signs = np.random.default_rng(1)
        net.set_weights(
            [w * (1 + apart * signs.choice([-1, 1], w.shape)) for w in net.get_weights()]
        )
        model, history = fitting.fit(
            net, stage, lambda epoch: train.shuffled(0, epoch), val, folder
        )
        weights = [np.asarray(w) for w in model.get_weights()]
        np.savez(folder / f"weights-{rank}.npz", *weights)
        losses = [(i + 1) * means[i + 1] - i * means[i] for i in range(STEPS)]
        print(json.dumps({"losses": losses, "history": history}), flush=True)


def together(count: int, folder: Path, *output: object) -> list[dict]:
    folder.mkdir(parents=True)
    addresses = free_addresses(count) if count > 1 else ""
    words = [sys.executable, __file__, "--work", folder, addresses]
    processes = [
        subprocess.Popen(list(map(str, [*words, rank, *output])), stdout=subprocess.PIPE, text=True)
        for rank in range(count)
    ]
    return [json.loads(p.communicate()[0].splitlines()[-1]) for p in processes]


def equal_training(folder: Path, case: str, file: str) -> None:
    import numpy as np

    counts = {"1": 1, "1, apart": 1, "2": 2, "4": 4}
    print(f"\n{case}: rate {CASES[case][0]:g}")
    print("processes  loss of step 1, 10, 20   largest difference  accuracy  val_accuracy")
    for name, count in counts.items():
        parts = together(count, folder / name, APART if "apart" in name else 0.0, case, file)
        losses = np.array(parts[0]["losses"])
        weights = [np.load(folder / name / f"weights-{r}.npz") for r in range(count)]
        if name == "1":
            alone, first = losses, weights[0]
        row = parts[0]["history"][0]
        print(
            f"{name:9}  {losses[0]:.5f} {losses[9]:.5f} {losses[-1]:.5f} "
            f"{np.abs(losses - alone).max():20.1e}  {row['accuracy']:8.3f}  "
            f"{row['val_accuracy']:.3f}"
        )
        off = max(float(np.abs(first[key] - weights[0][key]).max()) for key in first)
        same = all(np.array_equal(weights[0][key], w[key]) for w in weights for key in first)
        print(
            f"           differences by step {' '.join(f'{d:.0e}' for d in abs(losses - alone))}\n"
            f"           final weights of all ranks {'equal' if same else 'DIFFER'}; from those of "
            f"one process at most {off:.1e}",
            flush=True,
        )


def toy(folder: Path, count: int, *arguments: float) -> list[subprocess.Popen]:
    folder.mkdir(exist_ok=True)
    addresses = free_addresses(count) if count > 1 else ""
    processes = []
    for rank in range(count):
        words = [sys.executable, TOY, folder, addresses, rank, *arguments]
        with (folder / f"said-{rank}.txt").open("w") as output:
            processes.append(
                subprocess.Popen(list(map(str, words)), stdout=output, stderr=subprocess.STDOUT)
            )
    return processes


def result(folder: Path) -> dict:
    return json.loads((folder / "said-0.txt").read_text().splitlines()[-1])


def shown(folder: Path) -> set[str]:
    return {x for file in folder.glob("seen-*.txt") for x in file.read_text().splitlines()}


def begun(folder: Path, *, traced: bool) -> bool:
    if traced:
        return any(folder.glob("toy-0000-00000[1-9]"))
    return "Process 0" in (folder / "said-0.txt").read_text()


def kills(folder: Path, count: int, seed: int) -> None:
    (alone,) = toy(folder / "alone", 1)
    assert alone.wait() == 0
    expected, images = result(folder / "alone"), shown(folder / "alone")
    draw = random.Random(seed)
    right = 0
    for k in range(count):
        own = folder / f"kill-{k}"
        processes = toy(own, 2, 1e-3, 0.3)  # .3 s a batch, a state at most every .06 s
        # One in four while the net is traced, the others while it trains.
        while processes[0].poll() is None and not begun(own, traced=k % 4 > 0):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 4))
        victim = draw.randrange(2)
        states = sorted(p.name for p in own.glob("toy-*") if p.is_dir())
        parts = [p.name for p in own.glob(".part-*")]
        over = processes[victim].poll() is not None
        processes[victim].kill()
        start = time.monotonic()
        other = processes[1 - victim].wait()
        waited = time.monotonic() - start
        processes[victim].wait()
        resumed = (1, 2, 4)[k % 3]
        codes = [p.wait() for p in toy(own, resumed)]
        got = result(own)
        losses = [
            abs(a[key] - b[key])
            for a, b in zip(got["history"], expected["history"], strict=True)
            for key in ("loss", "val_loss")
        ]
        fits = shown(own) == images and not any(codes) and not list(own.glob(".part-*"))
        right += fits
        print(
            f"kill {k}: rank {victim}{' (had ended)' if over else ''} with {states or 'no state'} "
            f"{parts or ''}; the other ended {waited:.1f} s later ({other}); resumed by {resumed}: "
            f"{len(shown(own))} images of {len(images)}, losses to {max(losses):.0e}, "
            f"{'as if nothing had been' if fits else 'NOT as it should be'}",
            flush=True,
        )
    print(f"{right} of {count} runs ended with the same images seen and nothing half-written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="", help="a file of MobileNetV3-Small's, alpha 1")
    parser.add_argument("--only", nargs="*", choices=CASES)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--no-training", action="store_true", help="the kills alone")
    given = parser.parse_args()
    if given.work:
        folder, addresses, rank, apart, case, file = given.work
        work(Path(folder), addresses, int(rank), float(apart), case, file)
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        if not given.no_training:
            for k, case in enumerate(given.only or CASES):
                if given.weights or "pretrained" not in case:
                    file = given.weights if "pretrained" in case else ""
                    equal_training(Path(scratch) / f"case-{k}", case, file)
        if given.kills:
            kills(Path(scratch), given.kills, given.seed)
