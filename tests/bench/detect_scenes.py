"""A detector from nothing in some four and a half minutes of CPU: shapes that this program draws.

    uv run python tests/bench/detect_scenes.py [FOLDER]

1,024 pictures of circles, crosses and triangles to learn from, 200 to measure on, 128 px, half a
MobileNetV3-Small. Prints mAP of the float model and of its int8 file, and the CPU time it took.
Reached: mAP50 .904 and .905 (mAP .617 and .622) in 265 s; with 9 epochs .802 in 185; a minimalistic
net, 11 epochs and 100 pictures to measure on, .754 in 186; at 96 px, 13 epochs, .716 in 206.
"""

import sys
import time
from pathlib import Path

from kzoo.recipes.detect import detect
from kzoo.recipes.scenes import draw_scenes


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/scenes")
    folder.mkdir(parents=True, exist_ok=True)
    data = draw_scenes(folder / "pictures", train=1024, val=200, side=128)
    begun = time.process_time()
    results = detect(
        data,
        model="mobilenet_v3_small",
        alpha=0.5,
        size=128,
        weights="none",
        epochs=12,
        qat_epochs=0,
        learning_rate=5e-3,
        crop=False,
        out=str(folder / "run"),
    )
    print(f"{results}\n{time.process_time() - begun:.0f} s of CPU")


if __name__ == "__main__":
    main()
