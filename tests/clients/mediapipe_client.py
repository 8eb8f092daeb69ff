"""Runs one file through MediaPipe Tasks: `python mediapipe_client.py TASK FILE IMAGES.npy`.

Prints JSON: for each image what the task said of it. Started by clients.py in an environment that
has mediapipe 1.2.2 and nothing of kzoo.
"""

import json
import sys

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def classify(base: BaseOptions, images: list[mp.Image]) -> list:
    options = vision.ImageClassifierOptions(base_options=base)
    with vision.ImageClassifier.create_from_options(options) as task:
        return [
            [[c.index, c.score, c.category_name] for c in found.classifications[0].categories]
            for found in map(task.classify, images)
        ]


def detect(base: BaseOptions, images: list[mp.Image]) -> list:
    options = vision.ObjectDetectorOptions(base_options=base, score_threshold=0.05, max_results=20)
    with vision.ObjectDetector.create_from_options(options) as task:
        return [
            [
                [b.origin_x, b.origin_y, b.width, b.height, c.score, c.category_name]
                for d in found.detections
                for b, c in [(d.bounding_box, d.categories[0])]
            ]
            for found in map(task.detect, images)
        ]


def segment(base: BaseOptions, images: list[mp.Image]) -> list:
    options = vision.ImageSegmenterOptions(
        base_options=base, output_category_mask=True, output_confidence_masks=True
    )
    with vision.ImageSegmenter.create_from_options(options) as task:
        results = [task.segment(image) for image in images]
        return [
            {
                "labels": list(task.labels),
                "mask": found.category_mask.numpy_view().reshape(image.height, -1).tolist(),
                "confidence": [float(m.numpy_view().mean()) for m in found.confidence_masks],
            }
            for found, image in zip(results, images, strict=True)
        ]


TASKS = {"classify": classify, "detect": detect, "segment": segment}

if __name__ == "__main__":
    task, file, images = sys.argv[1:]
    images = [mp.Image(image_format=mp.ImageFormat.SRGB, data=p) for p in np.load(images)]
    print(json.dumps(TASKS[task](BaseOptions(model_asset_path=file), images)))
