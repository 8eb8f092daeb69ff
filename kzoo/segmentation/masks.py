"""Masks in NumPy: class ids from a segmenter's output, and scores against the ground truth."""

import dataclasses
from collections.abc import Iterable

import numpy as np

VOID = 255  # Pascal VOC's label of pixels that are ignored
TOLERANCE = 0.0075  # share of the diagonal within which a boundary pixel counts as found


def mask_at(
    output: np.ndarray, size: tuple[int, int], *, align_corners: bool = False
) -> np.ndarray:
    """Return a segmenter's output for one image as class ids (H, W), uint8, resized to `size`.

    output: of a Keras model or a `Runner`: logits or scores (h, w, classes), which are resized
        bilinearly before the argmax; the probability of class 1, (h, w, 1), with threshold .5; or
        class ids (h, w), which are resized by nearest neighbour.
    size: (height, width) of the mask.
    align_corners: align the centres of the corner pixels, as TF-DeepLab's files need it; otherwise
        their outer edges, as in Keras.

    Raises ValueError for outputs of other shapes and for more than 255 classes.
    """
    output = np.asarray(output)
    if output.ndim not in (2, 3) or 0 in output.shape:
        raise ValueError(
            "A mask is made of the output for one image, (h, w, classes) or (h, w). Received: "
            f"shape {output.shape}"
        )
    if output.ndim == 2:
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * have / n).astype(int), have - 1)
            for n, have in zip(size, output.shape, strict=True)
        )
        return output[rows][:, columns].astype(np.uint8)
    if output.shape[-1] > VOID:
        raise ValueError(f"A uint8 mask holds up to {VOID} classes. Received: {output.shape[-1]}")
    if output.shape[:2] != tuple(size):
        for axis, n in enumerate(size):
            output = enlarge(output, n, axis, align_corners)
    if output.shape[-1] == 1:
        return (output[..., 0] > 0.5).astype(np.uint8)
    return output.argmax(-1).astype(np.uint8)


def enlarge(values: np.ndarray, n: int, axis: int, align_corners: bool) -> np.ndarray:
    """Return `values` resized bilinearly along one axis to length `n`."""
    have = values.shape[axis]
    if align_corners:
        place = np.linspace(0, have - 1, n)
    else:
        place = np.clip((np.arange(n) + 0.5) * have / n - 0.5, 0, have - 1)
    low = np.floor(place).astype(int)
    share = (place - low).astype(np.float32)
    share = share.reshape(tuple(-1 if i == axis else 1 for i in range(values.ndim)))
    first = values.take(low, axis).astype(np.float32)
    return first + share * (values.take(np.minimum(low + 1, have - 1), axis) - first)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskScores:
    """Scores of predicted masks. Void pixels of the ground truth are ignored."""

    confusion: np.ndarray  # (classes, classes) pixel counts: rows truth, columns predictions
    boundary_f: np.ndarray  # (classes,), mean over images with the class; nan for absent classes

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union (classes,); nan for classes in neither truth nor predictions."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the truth or the predictions."""
        return mean(self.iou)

    @property
    def pixel_accuracy(self) -> float:
        total = self.confusion.sum()
        return float(np.diag(self.confusion).sum() / total) if total else float("nan")

    def __str__(self) -> str:
        return (
            f"mean IoU {self.mean_iou:.4f}, pixel accuracy {self.pixel_accuracy:.4f}, "
            f"boundary F {mean(self.boundary_f):.4f}"
        )


def score_masks(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int, *, void: int = VOID
) -> MaskScores:
    """Return the scores of (truth, prediction) pairs of masks with `classes` classes.

    pairs: class ids (H, W), both masks of a pair of the same size.
    void: the label of ground-truth pixels to ignore.

    Raises ValueError for pairs of different shapes and for class ids outside [0, classes), except
    void in the truth.
    """
    confusion = np.zeros((classes, classes), np.int64)
    boundaries = []
    for truth, found in pairs:
        if truth.shape != found.shape or truth.ndim != 2:
            raise ValueError(
                f"A pair of masks is (H, W) each. Received: {truth.shape} and {found.shape}"
            )
        counts = truth != void
        for what, ids in (("truth", truth[counts]), ("mask", found)):
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise ValueError(
                    f"A {what} holds class {ids.max()}, and there are {classes} classes (0 to "
                    f"{classes - 1})."
                )
        ids = truth[counts].astype(np.int64) * classes + found[counts]
        confusion += np.bincount(ids, minlength=classes**2).reshape(classes, classes)
        boundaries.append(boundary_scores(truth, found, classes, void))
    both = np.array(boundaries).reshape(-1, classes)
    known = ~np.isnan(both)
    total = np.where(known, both, 0).sum(0)
    per_class = np.divide(total, known.sum(0), out=np.full(classes, np.nan), where=known.any(0))
    return MaskScores(confusion, per_class)


def boundary_scores(truth: np.ndarray, found: np.ndarray, classes: int, void: int) -> np.ndarray:
    """Return the boundary F-score (classes,) of one image; nan for classes in neither mask.

    Boundary pixels match within `TOLERANCE` of the image's diagonal (Csurka et al., "What is a
    good evaluation measure for semantic segmentation?", BMVC 2013).
    """
    radius = max(1, round(TOLERANCE * float(np.hypot(*truth.shape))))
    found = np.where(truth == void, void, found)
    scores = np.full(classes, np.nan)
    for i in range(classes):
        a, b = outline(truth == i), outline(found == i)
        if a.any() or b.any():
            hits_a, hits_b = (a & near(b, radius)).sum(), (b & near(a, radius)).sum()
            precision, recall = hits_b / max(b.sum(), 1), hits_a / max(a.sum(), 1)
            scores[i] = 2 * precision * recall / max(precision + recall, 1e-9)
    return scores


def outline(region: np.ndarray) -> np.ndarray:
    """Return the pixels of a region with at least one of four neighbours outside of it."""
    edge = np.pad(region, 1, mode="edge")
    inside = edge[:-2, 1:-1] & edge[2:, 1:-1] & edge[1:-1, :-2] & edge[1:-1, 2:]
    return region & ~inside


def near(points: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels within `radius` px of one of the points: dilation by a disk."""
    height, width = points.shape
    padded = np.pad(points, radius)
    result = np.zeros_like(points)
    for dy in range(-radius, radius + 1):
        reach = int(np.sqrt(radius**2 - dy**2))
        for dx in range(-reach, reach + 1):
            y, x = radius + dy, radius + dx
            result |= padded[y : y + height, x : x + width]
    return result


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
