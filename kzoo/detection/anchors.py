"""The boxes that a detector starts from."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The boxes that a detector starts from: some of every shape at each cell of each feature map.

    A map's boxes are squares of its scale and of the geometric mean of it and the next, and for
    each of `ratios` a wide and a high one. Scales go from `scales[0]` to `scales[1]` in even steps,
    and then to 1. With `reduced_first` the first map has three boxes: a square of scale .1, and
    those of ratio 2 (TF Object Detection's reduce_boxes_in_lowest_layer).
    Source: https://arxiv.org/abs/1512.02325, section 2.2; the order is torchvision's.
    """

    grids: tuple[tuple[int, int], ...]  # (H, W) of the feature maps
    ratios: tuple[float, ...] = (2.0, 3.0)
    scales: tuple[float, float] = (0.2, 0.95)
    reduced_first: bool = False

    def shapes(self, level: int) -> list[tuple[float, float]]:
        """(height, width) of the boxes at each cell of a map."""
        first, last = self.scales
        steps = [*np.linspace(first, last, len(self.grids)).tolist(), 1.0]
        scale, between = steps[level], math.sqrt(steps[level] * steps[level + 1])
        reduced = self.reduced_first and level == 0
        found = [(0.1, 0.1)] if reduced else [(scale, scale), (between, between)]
        for ratio in self.ratios[: 1 if reduced else None]:
            short, long = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
            found += [(short, long), (long, short)]
        return [(min(height, 1.0), min(width, 1.0)) for height, width in found]

    def boxes(self) -> np.ndarray:
        """(A, 4) float32: map by map, row by row, cell by cell. They may reach over the edge."""
        found = []
        for level, (rows, columns) in enumerate(self.grids):
            y = (np.arange(rows) + 0.5) / rows
            x = (np.arange(columns) + 0.5) / columns
            centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
            half = np.array(self.shapes(level)) / 2
            found.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
        return np.concatenate(found).astype("float32")
