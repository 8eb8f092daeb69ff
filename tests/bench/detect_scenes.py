"""A detector from nothing in three minutes of CPU: shapes that this program draws.

    uv run python tests/bench/detect_scenes.py [FOLDER] [SEED]

1,024 images of circles, crosses and triangles to learn from, 200 to measure on, 128 px, a
minimalistic MobileNetV3-Small. Prints mAP of the float model and of its int8 file, and the CPU time
of all but the drawing, from the first import on. One thread: TensorFlow's pool takes 1.8 times the
CPU time for a net this small, and the clock as long.
Reached: mAP50 .883 and .882, mAP .612 and .605, in 176 s; with seed 1 .939 and .939, .651 and .652,
in 142 s. Training alone with more or less of it
(mAP50, seconds of CPU on a busier machine): 15 epochs .939 in 166 where 11 take 129; rates of 3e-3
.786 and 5e-3 .864 at 11 epochs; a V3-Small of half the width, 12 epochs, .84 and .91 by the seed in
147, with batches of 8 .943 in 195; V2 0.35 .670 in 184; V1 0.25 learns nothing in 124.
"""

import os
import sys
import time
from pathlib import Path

os.environ["TF_NUM_INTEROP_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

from kzoo.recipes.detect import detect

sys.path.insert(0, str(Path(__file__).parents[1]))
from scenes import draw_scenes


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/scenes")
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    data = draw_scenes(folder / "images", train=1024, val=200, side=128)
    drawing = time.process_time() - begun
    results = detect(
        data,
        model="mobilenet_v3_small_minimalistic",
        size=128,
        weights="none",
        epochs=11,
        qat_epochs=0,
        learning_rate=8e-3,
        crop=False,
        seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        out=str(folder / "run"),
    )
    print(f"{results}\n{time.process_time() - drawing:.0f} s of CPU")


if __name__ == "__main__":
    main()
