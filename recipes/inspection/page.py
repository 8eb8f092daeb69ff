"""The page inspect.html of `kzoo inspect`, with images of every class."""

import dataclasses
import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kzoo.detection.detections import Detections
from kzoo.recipes.data.images import BadImageError, read_image
from kzoo.recipes.data.masks.pairs import full_mask
from kzoo.recipes.data.splits import NAMES
from kzoo.recipes.evaluation.drawings import draw_boxes, overlay
from kzoo.recipes.evaluation.page import THUMBNAIL, gallery, listed, plot, table, write_page
from kzoo.recipes.inspection.inspection import Inspection, Item
from kzoo.sizes import height_width, size_text

PER_CLASS = 8  # images shown of each class
MOST_CLASSES = 60  # number of classes with images
MOST_ISSUES = 500  # number of issues listed
DRAWN = 2  # side of images with boxes / side of a thumbnail


def write_inspection(found: Inspection, file: str | Path) -> Inspection:
    """Write the page of an inspection; return the inspection with `page` set."""
    file = Path(file)
    counts = [found.counts(split) for split in NAMES]
    rows = [(label, *(count[i] for count in counts)) for i, label in enumerate(found.labels)]
    sections = {
        "What to do": listed(found.advice, "Nothing stands out."),
        "Splits": table(("split", "images"), list(found.splits.items())),
        "Classes": table(("class", *NAMES), rows),
        "Sizes": sizes(found),
        f"Issues ({len(found.issues)})": listed(issues(found), "None."),
    }
    for i, label in enumerate(found.labels[:MOST_CLASSES]):
        sections[label] = gallery(sheet(found, i))
    nothing = {"detect": "without objects", "multilabel": "without labels"}.get(found.task)
    if nothing and any(not item.labels for item in found.items):
        sections[nothing] = gallery(sheet(found, None))
    subtitle = f"{found.task}, read as {found.format}"
    write_page(file, f"The images of {found.data.resolve().name}", subtitle, sections)
    return dataclasses.replace(found, page=file)


def issues(found: Inspection) -> list[str]:
    shown = [str(issue) for issue in found.issues[:MOST_ISSUES]]
    more = len(found.issues) - len(shown)
    return [*shown, *([f"and {more} more"] if more else [])]


def sizes(found: Inspection) -> str:
    """Return HTML: the text on sizes, and a histogram of object sizes if there are objects."""
    text = "".join(f"<p>{html.escape(line)}</p>" for line in found.sizes())
    if not len(found.object_sizes):
        return text
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    edges = np.geomspace(1, max(height_width(found.size)), 25)
    axes.hist(found.object_sizes.clip(1), edges.tolist(), color="#2458d3")
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"side of objects in px, at an input of {size_text(found.size)} px")
    axes.set_ylabel("objects")
    axes.spines[["top", "right"]].set_visible(False)
    return text + plot(figure, "sizes of objects at the net's input")


def sheet(found: Inspection, label: int | None) -> Iterator[tuple[np.ndarray, str, str]]:
    """Yield (image, name, caption) of some examples of a class; None: of examples without class."""
    own = [
        item for item in found.items if (label in item.labels if label is not None else (
            not item.labels))
    ]  # fmt: skip
    some = np.linspace(0, len(own) - 1, min(PER_CLASS, len(own))).round().astype(int)
    for i in dict.fromkeys(some.tolist()):
        item = own[i]
        name = Path(str(item.source)).name
        try:
            image = drawn(found, item)
        except (BadImageError, OSError):  # deleted or damaged meanwhile
            continue
        yield image, name, html.escape(f"{name} ({item.split})")


def drawn(found: Inspection, item: Item) -> np.ndarray:
    """Return a thumbnail with its boxes or its mask drawn in."""
    if item.boxes is not None:
        scores = np.ones(len(item.labels), "float32")
        boxes = Detections(item.boxes, np.array(item.labels, int), scores)
        return draw_boxes(item.source, boxes, found.labels, DRAWN * THUMBNAIL)
    image = read_image(item.source, THUMBNAIL)
    return overlay(image, full_mask(item.pair)) if item.pair is not None else image
