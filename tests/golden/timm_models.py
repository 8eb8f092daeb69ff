"""timm's answers, for tests/test_mobilenet_v4.py: python tests/golden/timm_models.py

Needs timm (made with 1.0.31 beside torch 2.14.1), takes 20 s and writes timm_models.npz beside
itself. The weights are made from a seed and the parameter's name, so the test makes the same ones
without torch.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import torchvision_models
from golden.torchvision_models import MEAN, SIZES, STD, fill, pixels

GOLDEN = Path(__file__).with_suffix(".npz")
CLASSES = 100
CASES = (
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mobilenetv4_conv_large",
    "mobilenetv4_hybrid_medium",
    "mobilenetv4_hybrid_large",
)


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As torchvision's; the hybrids' residuals do not pile up, or attention would harden."""
    if name.endswith("gamma"):
        return 0.25 * torchvision_models.seeded(name.replace("gamma", "weight"), shape)
    return torchvision_models.seeded(name, shape)


def macs(net, size: int) -> int:
    """Multiply-accumulates of its convolutions and dense layers for one image."""
    import torch

    counted = []

    def count(module, inputs, output):
        if hasattr(module, "weight") and module.weight.ndim > 1:
            counted.append(output.numel() * module.weight[0].numel())

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def main() -> None:
    import timm
    import torch

    golden = {}
    for case in CASES:
        net = timm.create_model(case, num_classes=CLASSES).eval()
        golden[f"{case}/parameters"] = fill(net, seeded)
        with torch.no_grad():
            for size in SIZES:
                x = torch.from_numpy(((pixels(*size) / 255 - MEAN) / STD).astype("float32"))
                y = net(x.permute(2, 0, 1)[None])
                golden[f"{case}/{size[0]}x{size[1]}"] = y.numpy()
                print(f"{case} {size}: {tuple(y.shape)}, mean |y| {y.abs().mean():.3f}")
            golden[f"{case}/macs"] = np.array(macs(net, 224))
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
