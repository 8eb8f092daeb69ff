"""Put a .tflite file into an Android app that you have.

    python examples/file_to_android.py MODEL.tflite APP

APP is the folder of the app's module, which has src/main. The file is checked first: what the phone
runs it on, and that MediaPipe Tasks finds labels and pixel scaling in it. For a whole new app of a
finished run, call `kzoo android RUN`.
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
    raise SystemExit("The phone's LiteRT lacks operators of this file.")
metadata = kzoo.tflite.read_metadata(given.file)
if metadata is None or not metadata.labels:
    raise SystemExit("The file names no classes: convert it with labels=[...].")

assets = given.app / "src" / "main" / "assets"
assets.mkdir(parents=True, exist_ok=True)
shutil.copyfile(given.file, assets / given.file.name)
print(f"{assets / given.file.name} knows {', '.join(metadata.labels)}.")
print(f"""
In build.gradle.kts:   implementation("com.google.mediapipe:tasks-vision:latest.release")
In Kotlin:             val classifier = ImageClassifier.createFromFile(context, "{given.file.name}")
                       classifier.classify(BitmapImageBuilder(bitmap).build())
""")
