"""torchvision's segmenters' answers, for tests/test_segmentation.py: python tests/golden/torchvision_lraspp.py

Needs torchvision (made with 0.29.1 beside torch 2.14.1), takes 10 s and writes
torchvision_lraspp.npz beside itself. Weights and images are those of torchvision_models.py.
"""  # noqa: E501

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden.torchvision_models import MEAN, SIZES, STD, fill, pixels

GOLDEN = Path(__file__).with_suffix(".npz")
CLASSES = 5
CASES = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
KEPT = 3  # every third row and column


def main() -> None:
    import torch
    import torchvision

    golden = {}
    for case in CASES:
        net = getattr(torchvision.models.segmentation, case)(
            num_classes=CLASSES, weights=None, weights_backbone=None
        ).eval()
        golden[f"{case}/parameters"] = fill(net)
        with torch.no_grad():
            for size in SIZES:
                x = torch.from_numpy(((pixels(*size) / 255 - MEAN) / STD).astype("float32"))
                y = net(x.permute(2, 0, 1)[None])["out"].permute(0, 2, 3, 1)
                golden[f"{case}/{size[0]}x{size[1]}"] = y[0, ::KEPT, ::KEPT].numpy()
                print(f"{case} {size}: {tuple(y.shape)}, mean |y| {y.abs().mean():.3f}")
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
