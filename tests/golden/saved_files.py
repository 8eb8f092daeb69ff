"""Saved models as kzoo wrote them at commit 9b6b9e9, with what they give (tests/test_saved.py).

    PYTHONPATH=.:tests python tests/golden/saved_files.py OUT

NAME.keras with NAME.npz beside it: `x` the input (uint8; feed it as float32), and the outputs by
name ("output" where there is one). `distilled` and `segmenter` are compiled and trained for two
steps; their .npz also holds the targets `y`, the `loss` of one more `train_on_batch(x, y)` on the
loaded model and what that leaves: `weights`, all of get_weights() (of the distilled model's
`student`), raveled one after the other. At that commit the modules had other names.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from golden.tiny import CLASSIFIER, DETECTOR, classifier, images, randomized, squeeze

import kzoo
import kzoo.interop
from kzoo.backbones.rows import Head
from kzoo.segmentation.losses import MeanIoU, PixelAccuracy


def outputs_of(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    found = model.predict(x, verbose=0)
    return found if isinstance(found, dict) else {"output": found}


def keep(out: Path, name: str, model: keras.Model, x: np.ndarray) -> None:
    """Write the two files, and see that the model gives the same when it is read again."""
    file, outputs = out / f"{name}.keras", outputs_of(model, x)
    model.save(file)
    squeeze(file)
    again = keras.saving.load_model(file)
    assert type(again) is type(model)
    for key, value in outputs_of(again, x).items():
        np.testing.assert_allclose(value, outputs[key], rtol=1e-5, atol=1e-6)
    np.savez_compressed(out / f"{name}.npz", x=x.astype("uint8"), **outputs)


def keep_trained(
    out: Path, name: str, model: keras.Model, inner: str, x: np.ndarray, y: np.ndarray
) -> None:
    """Write the two files after two steps, with what the third makes of the model."""
    for _ in range(2):
        model.train_on_batch(x, y)
    outputs = {key: value.copy() for key, value in outputs_of(model, x).items()}
    model.save(out / f"{name}.keras")
    squeeze(out / f"{name}.keras")
    again = keras.saving.load_model(out / f"{name}.keras")
    found = again.train_on_batch(x, y, return_dict=True)
    after = np.concatenate([w.ravel() for w in getattr(again, inner, again).get_weights()])
    np.savez_compressed(
        out / f"{name}.npz", x=x.astype("uint8"), y=y, **outputs,
        loss=np.float32(found["loss"]), weights=after,
    )  # fmt: skip


def main(out: Path) -> None:
    keras.utils.set_random_seed(0)
    x = images(8, 2)[0]
    large = images(1, 3, 64)[0]

    backbone = kzoo.build("tiny", DETECTOR, Head(), input_shape=(64, 64, 3), include_top=False)
    detector = randomized(kzoo.SSDLite(backbone, 2, extras=(4,), scales=(0.3, 0.9)))
    keep(out, "detector", detector, large.astype("float32"))
    int8 = kzoo.quantize(detector, calibration=images(16, 4, 64)[0])
    keep(out, "quantized_detector", int8, large.astype("float32"))

    net = randomized(classifier(input_shape=(32, 32, 3), classes=3))
    int8 = kzoo.quantize(net, calibration=images(48, 4)[0])
    keep(out, "quantized", int8, x.astype("float32"))

    taught = kzoo.distill(int8, net, weight=0.5)
    taught.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy")
    targets = np.eye(3)[np.arange(8) % 3]
    keep_trained(out, "distilled", taught, "student", x.astype("float32"), targets)

    features = kzoo.build(
        "tiny", CLASSIFIER, Head(), input_shape=(32, 32, 3), include_top=False, output_stride=8
    )
    keep(out, "backbone", kzoo.interop.backbone(randomized(features)), x[:2].astype("float32"))
    features = kzoo.build(
        "tiny", DETECTOR, Head(), input_shape=(64, 64, 3), include_top=False, output_stride=16
    )
    segmenter = randomized(kzoo.LRASPP(features, 2, filters=8, full_resolution=False))
    segmenter.compile(
        keras.optimizers.Adam(1e-3), kzoo.SegmentationLoss(dice=1.0, class_weights=[1.0, 2.0]),
        metrics=[MeanIoU(2), PixelAccuracy()],
    )  # fmt: skip
    masks = (large[:, ::8, ::8].argmax(-1) % 2).astype("uint8")
    keep_trained(out, "segmenter", segmenter, "none", large.astype("float32"), masks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
