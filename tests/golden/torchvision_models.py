"""torchvision's answers, for tests/test_models.py: python tests/golden/torchvision_models.py

Needs torchvision (made with 0.29.1 beside torch 2.14.1, 5.6 GB, which is why the answers are kept
in a file), takes 10 s and writes torchvision_models.npz beside itself. The weights are made from a
seed and the parameter's name, so the test makes the same ones without torch.
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_suffix(".npz")
SEED, CLASSES = 20, 100
# name in the golden file: (torchvision's builder, its arguments, what of the output is kept)
CASES = {
    "v2": ("mobilenet_v2", {}, "logits"),
    "v3_large": ("mobilenet_v3_large", {}, "logits"),
    "v3_small": ("mobilenet_v3_small", {}, "logits"),
    "v3_large_reduced": ("mobilenet_v3_large", {"reduced_tail": True}, "logits"),
    "v3_small_reduced": ("mobilenet_v3_small", {"reduced_tail": True}, "logits"),
    "v3_large_dilated": ("mobilenet_v3_large", {"dilated": True}, "features"),
    "v3_small_dilated": ("mobilenet_v3_small", {"dilated": True}, "features"),
}
SIZES = ((64, 64), (75, 49))  # even sizes and odd ones are padded differently
KEPT = 40  # every 40th channel of a feature map
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's preset


def pixels(height: int, width: int) -> np.ndarray:
    """An image (H, W, 3) of whole numbers in [0, 255]."""
    return np.random.default_rng([SEED, height, width]).integers(0, 256, (height, width, 3))


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter of that name; activations stay of order 1, statistics far from 0 and 1."""
    rng = np.random.default_rng([SEED, *name.encode()])
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 100
    return (rng.normal(size=shape) * np.sqrt(1.5 / fan_in)).astype("float32")


def fill(net, value_of=seeded) -> np.ndarray:
    """Gives a PyTorch net its seeded weights; a line for each, its name and its shape."""
    import torch

    lines = []
    for name, value in net.state_dict().items():  # views without gradients
        if "num_batches" not in name:
            value.copy_(torch.from_numpy(value_of(name, tuple(value.shape))))
            lines.append(f"{name} {' '.join(map(str, value.shape))}")
    return np.array(lines)


def main() -> None:
    import torch
    import torchvision

    golden = {}
    for case, (builder, arguments, kept) in CASES.items():
        net = getattr(torchvision.models, builder)(num_classes=CLASSES, **arguments).eval()
        golden[f"{case}/parameters"] = fill(net)
        with torch.no_grad():
            for size in SIZES:
                x = torch.from_numpy(((pixels(*size) / 255 - MEAN) / STD).astype("float32"))
                x = x.permute(2, 0, 1)[None]
                y = net(x) if kept == "logits" else net.features(x)[:, ::KEPT]
                golden[f"{case}/{size[0]}x{size[1]}"] = y.numpy()
                print(f"{case} {size}: {tuple(y.shape)}, mean |y| {y.abs().mean():.3f}")
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
