"""Every member of the family against another library: parameters, MACs, outputs.

    KERAS_BACKEND=jax uv run python tests/bench/parity.py      a minute or more; any backend

Nets of 1,000 classes are counted at 224 px, V4 at timm's own sizes. Outputs (logits) are those of
random weights at 64 x 64 px, 75 x 49 where the reference has them: the largest difference, over the
largest number there. keras.applications runs beside, on the same backend; timm and torchvision have
run before (tests/golden). A count that differed would stand in brackets.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
from golden import timm_models, torchvision_models
from golden.backends import fill
from test_mobilenet_v4 import PARAMETERS, counts, from_timm
from test_models import from_torchvision, pixels, run

import kzoo

SIDE, CLASSES = 64, 20
V1, V2, V3 = (f"mobilenet_v{i}" for i in (1, 2, 3))
APPLICATIONS: dict[str, tuple[Callable[..., keras.Model], dict]] = {
    V1: (keras.applications.MobileNet, {}),
    V2: (keras.applications.MobileNetV2, {}),
    f"{V3}_large": (keras.applications.MobileNetV3Large, {}),
    f"{V3}_large_minimalistic": (keras.applications.MobileNetV3Large, {"minimalistic": True}),
    f"{V3}_small": (keras.applications.MobileNetV3Small, {}),
    f"{V3}_small_minimalistic": (keras.applications.MobileNetV3Small, {"minimalistic": True}),
}
TORCHVISION = {V2: "v2", f"{V3}_large": "v3_large", f"{V3}_small": "v3_small"}  # in its golden file
# Net, library, parameters and theirs, MACs and theirs (0: not counted), difference of outputs.
Row = tuple[str, str, int, int, int, int, float]


def by_applications() -> Iterable[Row]:
    for name, (build, options) in APPLICATIONS.items():
        found = kzoo.profile(kzoo.get_model(name)())
        theirs = kzoo.profile(build(weights=None, **options), input_shape=(224, 224, 3))
        same = {"input_shape": (SIDE, SIDE, 3), "classes": CLASSES, "classifier_activation": None}
        ours = fill(kzoo.get_model(name)(1.0, preprocessing=None, **same))
        if "v3" in name:
            same["include_preprocessing"] = False
        other = build(weights=None, **same, **options)
        values = zip(ours.get_weights(), other.weights, strict=True)
        other.set_weights([value.reshape(weight.shape) for value, weight in values])
        x = pixels(SIDE, SIDE) / 127.5 - 1
        off = apart(run(ours, x), run(other, x))
        yield (
            name, "keras.applications",
            found.trainable, theirs.trainable, found.macs, theirs.macs, off,
        )  # fmt: skip


def by_torchvision() -> Iterable[Row]:
    for name, case in TORCHVISION.items():
        found = kzoo.profile(kzoo.get_model(name)())
        with np.load(torchvision_models.GOLDEN) as golden:
            lines = [line.split() for line in golden[f"{case}/parameters"].tolist()]
        shapes = [tuple(map(int, shape)) for key, *shape in lines if "running" not in key]
        theirs = sum(map(np.prod, shapes)) + (shapes[-2][1] + 1) * (1000 - shapes[-1][0])
        off = max(apart(*from_torchvision(case, size)) for size in torchvision_models.SIZES)
        yield name, "torchvision", found.trainable, int(theirs), found.macs, 0, off


def by_timm() -> Iterable[Row]:
    for case, parameters in PARAMETERS.items():
        found, macs = counts(case)
        with np.load(timm_models.GOLDEN) as golden:
            sizes = [size for size in timm_models.SIZES if f"{case}/{size[0]}x{size[1]}" in golden]
        with tempfile.TemporaryDirectory() as folder:
            off = max(apart(*from_timm(case, size, Path(folder))) for size in sizes)
        yield case, "timm", found.trainable, parameters, found.macs, macs, off


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    assert np.std(expected) > 1e-3 * np.abs(expected).max(), "a constant shows nothing"
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def zeros(self, shape, dtype=None):
    return np.zeros(shape, dtype or "float32")


if __name__ == "__main__":
    # In place of random weights, which on JAX take up to 40 s a net: all are set afterwards.
    keras.initializers.GlorotUniform.__call__ = zeros
    print(f"| net | as in | parameters | MACs / M | outputs on {keras.backend.backend()} |")
    print("| --- | --- | --- | --- | --- |")
    for source in (by_applications, by_torchvision, by_timm):
        for name, library, parameters, theirs, macs, their_macs, off in source():
            difference = "" if macs == their_macs else f" ({their_macs / 1e6:,.3f})"
            columns = (
                f"{parameters:,}{'' if parameters == theirs else f' ({theirs:,})'}",
                f"{macs / 1e6:,.3f}{difference}" if their_macs else "",
                f"{off:.0e}" if off else "equal",
            )
            print(f"| {name} | {library} | {' | '.join(columns)} |", flush=True)
