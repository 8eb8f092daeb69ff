"""Train a MobileNet on PyTorch with a DataLoader and a torch optimizer.

    python examples/fine_tune_torch.py [--size 96] [--steps 30]

The images are drawn by the script: a bright square on the left or on the right.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch

import kzoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--steps", type=int, default=30)
given = parser.parse_args()


class Squares(torch.utils.data.Dataset):
    """Images (size, size, 3) in [0, 255]; label 0: a square on the left, 1: on the right."""

    def __len__(self) -> int:
        return 32 * given.steps

    def __getitem__(self, i: int):
        rng = np.random.default_rng(i)
        image, label, half = (
            rng.uniform(0, 120, (given.size, given.size, 3)),
            i % 2,
            given.size // 2,
        )
        top, left = rng.integers(0, half, 2)
        image[top : top + half // 2, label * half + left // 2 :][:, : half // 2] = 255
        return image.astype("float32"), label


model = kzoo.MobileNetV2(0.35, input_shape=(given.size, given.size, 3), classes=2,
                         classifier_activation=None)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
for i, (images, labels) in enumerate(torch.utils.data.DataLoader(Squares(), batch_size=32)):
    loss = torch.nn.functional.cross_entropy(model(images, training=True), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if i % 10 == 0:
        print(f"step {i}: loss {loss.item():.3f}")
model.save("squares.keras")
