"""Image classification as in MediaPipe Model Maker or TFLite Model Maker, with kzoo.

    python examples/from_model_maker.py PHOTOS [--size 224] [--epochs 12]

PHOTOS has one folder per class, as for `Dataset.from_folder`. Comments name the Model Maker
calls that each step replaces. Object detection works in the same way with
`recipes.detect` and a folder in Pascal VOC's or COCO's format.
"""

import argparse

import kzoo.tflite
from kzoo import recipes

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("photos")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--weights", default="none", help='"imagenet", or the path of a weights file')
parser.add_argument("--out", default="run")
given = parser.parse_args()

# Dataset.from_folder(photos) and data.split(0.8): the folder is read, and a fifth is drawn for
# validation, unless it has train/, val/ and test/.
print(recipes.inspect(given.photos))

# HParams(epochs=, export_dir=), SupportedModels.MOBILENET_V2, ImageClassifier.create(...),
# model.evaluate(...), QuantizationConfig.for_int8(data) and model.export_model(): one call. If
# it is stopped, the same call resumes it.
results = recipes.classify(
    given.photos, model="mobilenet_v2", alpha=0.35, size=given.size, epochs=given.epochs,
    weights=given.weights, qat_epochs=0, out=given.out, quiet=True,
)  # fmt: skip
print(f"float32 {results.float_accuracy:.3f}, int8 {results.int8_accuracy:.3f}")

# Model Maker's metadata writer: labels and MediaPipe's metadata are inside the file.
file = f"{given.out}/model.tflite"
print(kzoo.tflite.read_metadata(file).labels)

# Write an Android project with the file; or replace Model Maker's file in your app by model.tflite.
print(recipes.android(given.out, "PhotosApp", package="com.example.photos"))
