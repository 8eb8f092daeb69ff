"""Accuracy in int8: float, the usual conversion, kzoo's post-training int8, and after training.

    uv run python tests/bench/qat_accuracy.py MODEL.keras TRAIN VAL [--seeds 3] [--epochs 6]

MODEL is a trained float classifier of 224-px pictures in [0, 255] that ends in a softmax; TRAIN and
VAL are folders with one folder of pictures per class. Each int8 model is measured by the
interpreter. A seed is a choice of 128 calibration pictures, and of the order and augmentation in
training. Cost on one core: V3-Small about 10 minutes a seed.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.tflite import Runner, convert

AUGMENT = (
    keras.layers.RandomFlip("horizontal"),
    keras.layers.RandomTranslation(0.05, 0.05, fill_mode="nearest"),
    keras.layers.RandomZoom((-0.15, 0.0)),
)


def folder(path: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    found = keras.utils.image_dataset_from_directory(
        path, image_size=(size, size), batch_size=32, shuffle=False, verbose=False
    )
    pairs = [(keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)) for x, y in found]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return np.clip(np.rint(x), 0, 255).astype(np.uint8), y


class Batches(keras.utils.PyDataset):
    """Pictures and labels in an order of each epoch's own, augmented."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int, batch: int = 32):
        super().__init__()
        self.x, self.y, self.batch = x, y, batch
        self.rng = np.random.default_rng(seed)
        self.order = self.rng.permutation(len(x))

    def __len__(self) -> int:
        return len(self.x) // self.batch

    def __getitem__(self, i: int) -> tuple:
        chosen = self.order[i * self.batch : (i + 1) * self.batch]
        x = keras.ops.convert_to_tensor(self.x[chosen].astype(np.float32))
        for layer in AUGMENT:
            x = layer(x, training=True)
        return keras.ops.clip(keras.ops.round(x), 0, 255), self.y[chosen]

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--usual", action="store_true", help="the stock conversion too")
    options = parser.parse_args()
    whole = keras.saving.load_model(options.model, compile=False)
    model = keras.Model(whole.input, whole.layers[-1].input)  # logits
    size = model.input.shape[1]
    train, val = folder(options.train, size), folder(options.val, size)
    exact = model.predict(val[0], verbose=0)
    rows: dict[str, list[tuple[float, ...]]] = {}

    def measure(name: str, quantized: keras.Model, **more) -> None:
        with tempfile.TemporaryDirectory() as place:
            run = Runner(convert(quantized, Path(place) / "model.tflite", **more))
            y = np.stack([run(picture) for picture in val[0]]).reshape(len(val[0]), -1)
        z = quantized.predict(val[0], verbose=0)
        right = np.mean(y.argmax(-1) == val[1])
        agree = np.mean(y.argmax(-1) == exact.argmax(-1))
        same = np.mean(y.argmax(-1) == z.argmax(-1))
        rows.setdefault(name, []).append((right, agree, same))
        print(f"  {name:12} {right:.4f} {agree:.4f} {same:.4f}", flush=True)

    for seed in range(options.seeds):
        print(f"seed {seed}: accuracy, agreement with float, with its own Keras model")
        keras.utils.set_random_seed(seed)
        chosen = np.random.default_rng(seed).permutation(len(train[0]))[:128]
        calibration = train[0][chosen]
        if options.usual:
            measure("usual PTQ", model, calibration=calibration, calibrator="tensorflow")
        quantized = kzoo.quantize(model, calibration=calibration)
        measure("kzoo PTQ", quantized)
        both = kzoo.distill(quantized, model)
        batches = Batches(*train, seed)
        rate = keras.optimizers.schedules.CosineDecay(options.rate, options.epochs * len(batches))
        both.compile(keras.optimizers.Adam(rate), jit_compile=False)
        both.fit(batches, epochs=options.epochs, verbose=0)
        measure("kzoo QAT", quantized)
    print(f"float {np.mean(exact.argmax(-1) == val[1]):.4f} on {len(val[0])} pictures")
    for name, found in rows.items():
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        cells = "  ".join(f"{m:.4f} +- {s:.4f}" for m, s in zip(mean, spread, strict=True))
        print(f"{name:12} {cells}")


if __name__ == "__main__":
    main()
