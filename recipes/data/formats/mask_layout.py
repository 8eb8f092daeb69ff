"""Which files are masks, of which image each is, and which files name their classes."""

import re
from pathlib import Path

from kzoo.recipes.data.formats.records import Matched, Record
from kzoo.recipes.data.image_index import Asked, ImageIndex
from kzoo.recipes.data.layout import (
    IMAGE_WORDS,
    MASK_WORDS,
    Tree,
    folded,
    split_of_parts,
    words_of,
)
from kzoo.recipes.data.masks.names import Names
from kzoo.recipes.data.splits import Given, assigned, only_train, read_lists
from kzoo.recipes.data.text import Issue, numbers, read_lines, read_table
from kzoo.segmentation.masks import VOID

# What stems of masks and of images say of themselves.
MASK_STEM = re.compile(
    r"^(?:masks?|labels?|gt|seg)[_\- ](?P<a>.+)$|^(?P<b>.+?)[_\- ](?:gtfine_labelids|masks?|"
    r"labels?|labelids|gt|seg|segmentation|groundtruth|ground_truth|annotations?|trimap|target|l|"
    r"mask_?\d+)$",
    re.IGNORECASE,
)
IMAGE_STEM = re.compile(
    r"^(?:images?|img)[_\- ](?P<a>.+)$|^(?P<b>.+?)[_\- ](?:leftimg8bit|images?|img|rgb|sat)$",
    re.IGNORECASE,
)
# Masks of other things than classes, and drawings of masks.
OTHERS = re.compile(r"(?:_color|_colour|_instanceids|_instance|_overlay|_vis)$", re.IGNORECASE)
OTHER_FOLDERS = frozenset({
    "segmentationobject", "segmentationclassvisualization", "segmentationobjectvisualization",
    "visualization", "visualizations", "overlay", "overlays", "instances",
})  # fmt: skip
LABELS = ("labels.txt", "classes.txt", "class_names.txt")
MAPS = ("labelmap.txt", "label_colors.txt", "label_colours.txt", "class_dict.csv", "classes.csv")
VALUES = "_classes.csv"  # Roboflow's, beside the masks: a value and a name a line
VOC_LABELS = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


def bare(pattern: re.Pattern[str], stem: str) -> str:
    """Return a stem without what it says of itself."""
    found = pattern.match(stem)
    return next(filter(None, found.groups())) if found else stem


def is_mask(tree: Tree, path: Path) -> bool | None:
    """Whether the innermost folder that says what is in it says masks; None where none does."""
    for part in reversed(tree.inside(path).parent.parts):
        words = {*words_of(part), folded(part)}
        if words & OTHER_FOLDERS:
            return None
        if words & MASK_WORDS:
            return True
        if words & IMAGE_WORDS:
            return False
    return None


def divided(tree: Tree) -> tuple[list[Path], list[Path]]:
    """Return (images, masks) of a data set, by their folders, else by their stems."""
    images: list[Path] = []
    masks: list[Path] = []
    undecided: list[Path] = []
    for path in tree.images:
        if {folded(part) for part in tree.inside(path).parent.parts} & OTHER_FOLDERS:
            continue
        if path.is_dir():
            continue
        answer = is_mask(tree, path)
        (masks if answer else undecided if answer is None else images).append(path)
    if masks:
        masks = [path for path in masks if not OTHERS.search(path.stem)] or masks
        return images + undecided, masks
    stems = {(path.parent, folded(path.stem)) for path in tree.images}
    for path in images + undecided:
        stem = bare(MASK_STEM, path.stem)
        if stem != path.stem and (path.parent, folded(stem)) in stems:
            masks.append(path)
    masks = masks or beside_photos(images + undecided)
    chosen = set(masks)
    return [path for path in images + undecided if path not in chosen], masks


def beside_photos(paths: list[Path]) -> list[Path]:
    """Return the PNGs that stand beside a JPEG of the same name each, where all of them do."""
    photos = {path.with_suffix("") for path in paths if path.suffix.lower() in (".jpg", ".jpeg")}
    drawn = [path for path in paths if path.suffix.lower() == ".png"]
    return drawn if drawn and all(path.with_suffix("") in photos for path in drawn) else []


def mask_pairs(tree: Tree, issues: list[Issue]) -> tuple[list[Matched], bool]:
    """Return the images with mask files, each with its split; [] where there are no masks.

    And whether all that is given, with what has no image, is to train on (`only_train`).
    Masks stand as annotations do: `record.source` is the file.
    """
    if tree.only:
        return [], False
    images, masks = divided(tree)
    if not masks:
        return [], False
    index = ImageIndex(tree, images, lambda stem: bare(IMAGE_STEM, stem))
    asked = []
    for path in masks:
        split = split_of_parts(tree.inside(path).parent.parts)
        plain = Asked(path, "", own=True, split=split)
        short = bare(MASK_STEM, path.stem)
        if short != path.stem and not index.best(plain, ""):
            plain = Asked(path, "", own=True, split=split, stem=short)
        asked.append(plain)
    lost: list[Issue] = []
    paths = index.find(asked, lost)
    if not any(paths):
        return [], False
    of_image: dict[Path, list[Path]] = {}
    for mask, image in zip(masks, paths, strict=True):
        if image:
            of_image.setdefault(image, []).append(mask)
    issues += lost
    single: list[tuple[Path, Path]] = []
    for path, own in of_image.items():
        if len(own) > 1:
            names = " and ".join(str(tree.inside(mask)) for mask in own[:2])
            issues.append(Issue(path, f"has {len(own)} masks, {names}: left out"))
        else:
            single.append((path, own[0]))
    lists = read_lists(tree, index, issues, image_set="Segmentation")
    if not lists.files:  # Pascal VOC has more images than masks
        for path in images:
            if path not in of_image:
                issues.append(Issue(path, "has no mask: left out"))
    splits = assigned([Given(path, mask) for path, mask in single], tree, lists, issues)
    issues += tree.unread()
    given = [item.split for item, path in zip(asked, paths, strict=True) if not path]
    found = [
        Matched(Record(mask, "", (), None, own=True), path, split)
        for (path, mask), split in sorted(zip(single, splits, strict=True), key=lambda p: p[0])
    ]  # fmt: skip
    return found, only_train([*splits, *given])


# Names of classes


def mask_names(tree: Tree, issues: list[Issue]) -> Names:
    """Return the names of classes, and of colours, where files give them."""
    for name in MAPS:
        for file in (path for path in tree.files if path.name.lower() == name):
            if found := label_map(file, issues):
                return found
    for name in LABELS:
        for file in (path for path in tree.files if path.name.lower() == name):
            if found := label_map(file, issues):
                return found
            return Names(read_labels(file, issues))
    for file in (path for path in tree.files if path.name.lower() == VALUES):
        if labels := labels_by_value(file, issues):
            return Names(labels)
    if any(path.parent.name == "SegmentationClass" for path in tree.images):
        colours = {voc_colour(i): i for i in range(len(VOC_LABELS))}
        return Names(VOC_LABELS, colours, "Pascal VOC")
    return Names()


def read_labels(file: Path, issues: list[Issue]) -> tuple[str, ...]:
    lines = read_lines(file, issues)
    labels = tuple(lines[lines[:1] == ["__ignore__"] :])  # LabelMe's, of no id
    if not all(labels) or len(set(labels)) < len(labels) or not 1 < len(labels) < VOID:
        raise ValueError(
            f"{file} must name from 2 to {VOID - 1} classes, one per line, without duplicates."
        )
    return labels


def labels_by_value(file: Path, issues: list[Issue]) -> tuple[str, ...]:
    """Return the names of the values 0, 1, 2 ... of masks; none where a table has no such rows."""
    pairs = [row[:2] for row in table_rows(file, issues)[1:] if len(row) > 1]
    named = {int(value): name for value, name in pairs if value.isdecimal() and name}
    whole = len(named) == len(pairs) > 1 and sorted(named) == list(range(len(named)))
    return tuple(named[i] for i in sorted(named)) if whole and len(named) < VOID else ()


def label_map(file: Path, issues: list[Issue]) -> Names | None:
    """Return classes by their colours, as CVAT, Pascal VOC, CamVid and others write them.

    Lines are name:red,green,blue:parts:actions, or a name and three numbers in any order.
    """
    names: list[str] = []
    colours: dict[int, int] = {}
    lines = (
        [" ".join(cells) for cells in table_rows(file, issues)] if file.suffix == ".csv"
        else read_lines(file, issues)
    )  # fmt: skip
    for line in lines:
        if not line or line.startswith("#"):
            continue
        found = mapped(line)
        if found is None:
            if not names:
                continue  # a header
            return None
        name, colour = found
        colours[colour] = len(names)
        names.append(name)
    return Names(tuple(names), colours, file.name) if len(names) > 1 else None


def mapped(line: str) -> tuple[str, int] | None:
    """Return (name, colour) of a line of a label map."""
    if ":" in line:
        name, _, rest = line.partition(":")
        values = numbers(rest.partition(":")[0].split(","))
    else:
        cells = re.split(r"[\s,;]+", line)
        ends = ((cells[:3], cells[3:]), (cells[-3:], cells[:-3]))
        values, name = next(
            ((v, " ".join(rest)) for part, rest in ends if len(v := numbers(part)) == 3), ([], "")
        )
    if len(values) != 3 or not name or not all(0 <= v <= 255 for v in values):
        return None
    red, green, blue = map(int, values)
    return name.strip(), red << 16 | green << 8 | blue


def table_rows(file: Path, issues: list[Issue]) -> list[tuple[str, ...]]:
    table = read_table(file, issues)
    return [table.columns, *(cells for _, cells in table.rows)]


def voc_colour(index: int) -> int:
    """Return Pascal VOC's colour of a class: its bits, dealt out over red, green and blue."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red << 16 | green << 8 | blue
