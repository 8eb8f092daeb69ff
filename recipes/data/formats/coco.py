"""COCO json files: images, annotations and categories."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kzoo.recipes.data.formats.records import Found, Object, Record
from kzoo.recipes.data.layout import Tree
from kzoo.recipes.data.text import Issue, label_in, numbers, read_json

KEYS = (b'"images"', b'"annotations"', b'"categories"')
LEAST_TOLD, SURE = 3, 0.9  # objects, and their share, that tell what bbox holds
ENDS = 1 << 16  # bytes at either end of a file that are looked at
NEEDS = (
    "images (id, file_name), annotations (image_id, category_id, bbox or segmentation) and "
    "categories (id, name)"
)


def keys_in(file: Path) -> int:
    """Return how many of COCO's keys a json file holds, by its first and last pieces."""
    with file.open("rb") as content:
        head = content.read(ENDS)
        content.seek(max(0, file.stat().st_size - ENDS))
        text = (head + content.read()).replace(b"\0", b"")
    if b'"shapes"' in text or text.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith(b"["):
        return 0  # of LabelMe, of CreateML
    return sum(key in text for key in KEYS)


def has_coco(tree: Tree) -> bool:
    return any(keys_in(file) > 1 for file in tree.of(".json"))


def read_coco(tree: Tree, issues: list[Issue]) -> Found:
    """Return what files with images, annotations and categories say; those of captions do not."""
    contents: dict[Path, Any] = {}
    for file in tree.of(".json"):
        if keys_in(file):  # broken ones too: what they hold is not passed over
            contents[file] = read_json(file, issues)
        else:
            issues.append(Issue(file, "is no COCO file: left out"))
    usable = {file: content for file, content in contents.items() if not other_kind(content)}
    for file, content in contents.items():
        if file not in usable and usable:
            issues.append(Issue(file, f"{other_kind(content)}: left out"))
    usable = without_keypoints(usable, issues) or contents
    records: list[Record] = []
    names: dict[str, int] = {}  # of categories: the lowest id that has it
    for file, content in usable.items():
        with as_coco(file):
            categories = categories_of(file, content)
            check_categories(file, categories, names, issues)
            records += records_of(file, content, categories, issues)
    labels = tuple(sorted(names, key=lambda name: (names[name], name)))
    return without_parents(labels, usable, records, tree, issues), records


def other_kind(content: Any) -> str | None:
    """Return what a file holds instead of objects with boxes or outlines, or None."""
    if not isinstance(content, dict):
        return "is no COCO file"
    notes = content.get("annotations")
    if not isinstance(notes, list):
        return "is no COCO file of objects"
    first = next(iter(notes), None)
    if isinstance(first, dict):
        if "caption" in first:
            return "holds captions, not objects"
        if "segments_info" in first:
            return "holds panoptic segments, not objects"
        if "category_id" not in first and "image_id" not in first:
            return "holds no objects as COCO has them"
    if "categories" not in content or "images" not in content:
        return "is no COCO file of objects"
    return None


def without_keypoints(contents: dict[Path, Any], issues: list[Issue]) -> dict[Path, Any]:
    """Return the files without those that repeat another's images with keypoints."""
    plain = {file.name.replace("instances", "") for file in contents if "instances" in file.name}
    kept = {}
    for file, content in contents.items():
        bare = file.name.replace("person_keypoints", "").replace("stuff", "")
        if bare != file.name and bare in plain:
            issues.append(Issue(file, "repeats the images of the instances: left out"))
        else:
            kept[file] = content
    return kept


@contextlib.contextmanager
def as_coco(file: Path) -> Iterator[None]:
    """Names the file in whatever its content, of another shape than COCO's, makes go wrong."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        if str(file) in str(error):
            raise
        raise ValueError(
            f"{file} is not a COCO file: {type(error).__name__} {error}. It needs {NEEDS}."
        ) from None


def categories_of(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return {id: name}. Raises ValueError for an id of two categories."""
    found: dict[int, str] = {}
    for category in content["categories"]:
        key, name = int(category["id"]), label_in(category["name"])
        if found.setdefault(key, name) != name:
            raise ValueError(
                f"{file}: category id {key} is {found[key]!r} and {name!r}. Give each its own id."
            )
    return found


def check_categories(
    file: Path, categories: dict[int, str], names: dict[str, int], issues: list[Issue]
) -> None:
    """Add the categories of a file to `names`: objects go by the name, not by the number."""
    for key, name in categories.items():
        if names.setdefault(name, key) != key:
            reason = f"category {name!r} has the ids {names[name]} and {key}: read as one class"
            issues.append(Issue(file, reason))


def without_parents(
    labels: tuple[str, ...], contents: dict[Path, Any], records: list[Record], tree: Tree,
    issues: list[Issue],
) -> tuple[str, ...]:  # fmt: skip
    """Return the labels without a category that is the group of all others, as Roboflow has."""
    used = {item.label for record in records for item in record.objects}
    parents = {
        str(category.get("supercategory"))
        for content in contents.values() for category in content["categories"]
    }  # fmt: skip
    groups = [label for label in labels if label not in used and label in parents]
    for label in groups:
        issues.append(Issue(tree.root, f"category {label!r} is the group of others: no class"))
    kept = tuple(label for label in labels if label not in groups)
    ids = sorted(
        int(category["id"]) for content in contents.values() for category in content["categories"]
        if str(category["name"]).strip() in kept
    )  # fmt: skip
    if ids and set(ids) != set(range(ids[0], ids[0] + len(set(ids)))):
        issues.append(Issue(tree.root, f"category ids have gaps ({ids[0]} to {ids[-1]})"))
    return kept


def category_of(item: dict[str, Any]) -> Any:
    """Return the number of the category that an annotation names, or None where that is none."""
    try:
        return int(item["category_id"])
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def records_of(
    file: Path, content: dict[str, Any], categories: dict[int, str], issues: list[Issue]
) -> Iterable[Record]:
    images = images_by_id(file, content, issues)
    objects: dict[str, list[Object]] = {key: [] for key in images}
    left: Counter[str] = Counter()
    doubtful = {key_of(image["id"]) for image in content["images"]} - images.keys()
    corners = are_corners(content["annotations"])
    if corners:
        reason = (
            "bbox holds two corners, as the areas or outlines of the objects say, in place of "
            "COCO's corner, width and height: read as corners"
        )
        issues.append(Issue(file, reason))
    for item in content["annotations"]:
        key = key_of(item.get("image_id"))
        if key in doubtful:
            continue
        if key not in images:
            left["objects on images that it does not name: left out"] += 1
            continue
        label = categories.get(category_of(item), f"category {item.get('category_id')}")
        objects[key].append(object_of(item, label, corners=corners))
    issues += [Issue(file, f"{count} {what}") for what, count in left.items()]
    for key, image in images.items():
        sides = float(image.get("height") or 0), float(image.get("width") or 0)
        size = sides if all(sides) else None
        yield Record(file, str(image["file_name"]), tuple(objects[key]), size)


def images_by_id(
    file: Path, content: dict[str, Any], issues: list[Issue]
) -> dict[str, dict[str, Any]]:
    """Return {id: image}, without the ids that two images have: nobody knows whose boxes are."""
    found: dict[str, dict[str, Any]] = {}
    twice: dict[str, str] = {}
    for image in content["images"]:
        key, name = key_of(image["id"]), str(image["file_name"])
        if found.setdefault(key, image)["file_name"] != name:
            twice[key] = f"{found[key]['file_name']!r} and {name!r} have the id {image['id']}"
    for key, what in twice.items():
        issues.append(Issue(file, f"{what}: both left out, with their objects"))
        del found[key]
    return found


def key_of(number: Any) -> str:
    """Return the id of an image as a text: of 7, "7" and 7.0, as pandas writes it, the same."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def are_corners(annotations: list[dict[str, Any]]) -> bool:
    """Whether bbox is [x1, y1, x2, y2], as nearly all objects say whose area or outline tells."""
    found = Counter(filter(None, map(kind_of_box, annotations)))
    return found["corners"] >= max(LEAST_TOLD, SURE * found.total())


def kind_of_box(item: dict[str, Any]) -> str | None:
    """Return "sides" or "corners", as what fits an object's bbox alone; "neither"; None: untold.

    What it has to fit is the extent of the polygons, else the area, which detectors' data sets give
    as that of the box. Polygons may have a smaller area.
    """
    box, area = numbers(item.get("bbox")), numbers([item.get("area")])
    outlines = [numbers(own) for own in outlines_of(item.get("segmentation"))]
    if len(box) != 4 or item.get("iscrowd"):
        return None
    a, b, c, d = box
    if outlines and all(len(own) >= 6 for own in outlines):
        xs, ys = ([v for own in outlines for v in own[i::2]] for i in (0, 1))
        sides = all(abs(p - q) <= 1.5 for p, q in ((max(xs) - a, c), (max(ys) - b, d)))
        corners = all(abs(p - q) <= 1.5 for p, q in ((max(xs), c), (max(ys), d)))
    elif area and area[0] > 0:
        sides = abs(c * d - area[0]) <= 0.01 * area[0]
        corners = c > a and d > b and abs((c - a) * (d - b) - area[0]) <= 0.01 * area[0]
    else:
        return None
    if sides == corners:
        return None if sides else "neither"
    return "sides" if sides else "corners"


def object_of(item: dict[str, Any], label: str, *, corners: bool) -> Object:
    """Return an annotation's object; `corners`: its bbox holds two of them."""
    box = numbers(item.get("bbox"))
    extent = None
    if len(box) == 4:
        x, y, right, bottom = box if corners else (*box[:2], box[0] + box[2], box[1] + box[3])
        extent = (y, x, bottom, right)
    outlines = tuple(outlines_of(item.get("segmentation")))
    return Object(
        label,
        extent,
        outlines,
        crowd=str(item.get("iscrowd") or 0).strip().lower() not in ("0", "0.0", "false"),
        name=f"annotation {item.get('id', 'without an id')}",
        of_sides=not corners and not outlines,  # which tell what the numbers are
    )


def outlines_of(segmentation: Any) -> list[Any]:
    """Return the polygons or run lengths of an annotation: as a list, also of a single one."""
    if isinstance(segmentation, list):
        return segmentation
    return [segmentation] if segmentation else []
