"""Put a .tflite file into an existing Android app.

    python examples/file_to_android.py MODEL.tflite APP

APP is the folder of the app's module, which has src/main. The file is checked first: that the phone
can run it, and that MediaPipe Tasks finds labels and pixel scaling in it. For a complete new app
from a finished run, call `kzoo android RUN`.
"""

import argparse
import shutil
from pathlib import Path

import kzoo.tflite

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", type=Path)
parser.add_argument("app", type=Path)
given = parser.parse_args()

found = kzoo.tflite.audit(given.file)
print(found.verdict)
if found.custom_ops or found.flex_ops:
    raise SystemExit("LiteRT on the phone lacks operators of this file.")
metadata = kzoo.tflite.read_metadata(given.file)
if metadata is None or not metadata.labels or metadata.outputs is None:
    raise SystemExit("The file has no class names: convert it with labels=[...].")
task = metadata.outputs.task  # the class of MediaPipe Tasks that reads the outputs
verb = {"ImageClassifier": "classify", "ObjectDetector": "detect", "ImageSegmenter": "segment"}

assets = given.app / "src" / "main" / "assets"
assets.mkdir(parents=True, exist_ok=True)
shutil.copyfile(given.file, assets / given.file.name)
print(f"{assets / given.file.name} has the classes {', '.join(metadata.labels)}.")
print(f"""
In build.gradle.kts:   implementation("com.google.mediapipe:tasks-vision:latest.release")
In Kotlin:             val model = {task}.createFromFile(context, "{given.file.name}")
                       model.{verb[task]}(BitmapImageBuilder(bitmap).build())
""")
