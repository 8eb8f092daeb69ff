"""The files below a folder, and what the names of folders say: images, masks, train, val."""

import contextlib
import dataclasses
import functools
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from kzoo.recipes.data.images import SUFFIXES, is_candidate, why_unread
from kzoo.recipes.data.text import Issue
from kzoo.recipes.inputs import read_config

# Folders that say what is in them, and nothing of which images: images/train and train/labels are
# the same part of a data set.
IMAGE_WORDS = frozenset({
    "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures",
    "input", "inputs", "rgb", "leftimg8bit", "jpg", "jpgs", "png", "pngs", "original",
    "originals", "obj",
})  # fmt: skip
MASK_WORDS = frozenset({
    "mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationclassaug",
    "segmentationclasspng",
    "label", "labels", "labelids", "annot", "annots", "annotation", "annotations", "ann", "anns",
    "gt", "gts", "groundtruth", "groundtruths", "truth", "truths", "target", "targets", "trimap",
    "trimaps", "gtfine",
})  # fmt: skip
FILLERS = frozenset({
    "data", "dataset", "datasets", "set", "dir", "folder", "files", "all", "xml", "xmls", "json",
    "jsons", "bbox", "box", "boxes", "instances", "objects", "keypoints", "coco", "voc", "yolo",
    "createml", "csv", "split", "list", "seg", "subset",
})  # fmt: skip
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "eval": "val", "test": "test", "testing": "test",
}  # fmt: skip
PASSED_OVER = frozenset({"__MACOSX", "@eaDir", "lost+found"})


def folded(name: str) -> str:
    """Return a name without what differs between file systems: case and Unicode's form."""
    return unicodedata.normalize("NFC", name).casefold()


def meant(label: str, known: Collection[str]) -> str:
    """Return the one of the known labels that differs in spelling alone, if any.

    That is in case, in Unicode's form, or as 1, 01 and 1.0 do, which tables make of each other.
    """
    if label in known:
        return label
    alike = [one for one in known if plain_number(folded(one)) == plain_number(folded(label))]
    return alike[0] if len(alike) == 1 else label


def tell_alike(labels: Iterable[str], data: Path, issues: list[Issue]) -> None:
    """Add an issue for every two classes that differ as `meant` says, or in blanks, - and _."""
    first: dict[str, str] = {}
    for label in labels:
        key = plain_number(re.sub(r"[\s_\u200b-\u200d\u2060\ufeff-]+", " ", folded(label)).strip())
        if (other := first.setdefault(key, label)) != label:
            reason = f"classes {other!r} and {label!r} are spelt alike: are they one?"
            issues.append(Issue(data, reason))


def plain_number(label: str) -> str:
    """Return a label that is a whole number without leading zeros and a fraction of 0."""
    found = re.fullmatch(r"0*(\d+)(?:\.0+)?", label)
    return found[1] if found else label


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a path as any program writes it: of Windows, of the web, with dots."""
    name = re.sub(r"^(?:\w+://[^/]*|[A-Za-z]:)", "", name.strip().replace("\\", "/"))
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


@functools.cache
def words_of(part: str) -> tuple[str, ...]:
    """Return the words of a folder's name: trainannot is train, annot; val2017 is val."""
    words: list[str] = []
    for word in re.findall(r"[^\W\d_]+", folded(part)):
        words += pieces(word)
    return tuple(words)


def pieces(word: str) -> tuple[str, ...]:
    """Return a word in two, where it is the name of a split and what is in it."""
    for first, second in ((word[:i], word[i:]) for i in range(2, len(word) - 1)):
        for split, other in ((first, second), (second, first)):
            if split in SPLITS and other in IMAGE_WORDS | MASK_WORDS | FILLERS:
                return first, second
    return (word,)


@functools.cache
def key_part(part: str) -> str:
    """Return what a folder's name says of which images are in it; nothing for images/."""
    known = IMAGE_WORDS | MASK_WORDS
    if folded(part) in known:
        return ""
    if not set(words_of(part)) & known:
        return folded(part)
    kept = [word for word in words_of(part) if word not in known | FILLERS]
    return " ".join((*kept, *re.findall(r"\d+", part)))


def key_of(folders: Iterable[str]) -> tuple[str, ...]:
    """Return the parts that tell images of one name apart: of masks/train and train/images, one."""
    return tuple(key for key in map(key_part, folders) if key)


@dataclasses.dataclass(frozen=True)
class Tree:
    """The files of a data set, looked up once; links to folders are followed."""

    root: Path
    files: tuple[Path, ...]
    only: Path | None = None  # the one annotation file that was asked for

    @functools.cached_property
    def images(self) -> list[Path]:
        return [path for path in self.files if is_candidate(path)]

    @functools.cached_property
    def by_suffix(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self.files:
            found.setdefault(path.suffix.lower(), []).append(path)
        return found

    def of(self, *suffixes: str) -> list[Path]:
        """Return the files of a kind that annotations may stand in."""
        if self.only:
            return [self.only] if self.only.suffix.lower() in suffixes else []
        return [path for suffix in suffixes for path in self.by_suffix.get(suffix, ())]

    def inside(self, path: Path) -> PurePosixPath:
        """Return a path from the data set on: what stands above it says nothing."""
        try:
            return PurePosixPath(path.relative_to(self.root).as_posix())
        except ValueError:
            return PurePosixPath(path.name)

    def unread(self) -> list[Issue]:
        """Return an issue for every image in a format that is not read."""
        return [Issue(path, reason) for path in self.files if (reason := why_unread(path))]


def look_through(data: Path) -> Tree:
    """Return the files of `data`, a folder or an annotation file, whose images are beside it."""
    if data.is_dir():
        return Tree(data, tuple(walk(data)))
    root = data.parent
    if data.suffix.lower() in (".yaml", ".yml"):  # it stands for the folder that it is in
        return Tree(root, tuple(walk(root)))
    tree = Tree(root, tuple(walk(root)), data)
    if not tree.images and not key_part(root.resolve().name):  # annotations/train.json
        root = root.resolve().parent
        tree = Tree(root, tuple(walk(root)), data)
    return tree


def images_below(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted; those in hidden folders are left out."""
    return sorted(path for path in walk(folder) if is_candidate(path))


def walk(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """Yield the files below a folder in the order of their names, hidden ones left out.

    Folders of kzoo's runs are left out too: what they hold is made of the data.
    """
    status = folder.stat()
    own = (status.st_dev, status.st_ino)
    if own in above:  # a link to a folder that holds it
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in PASSED_OVER:
            continue
        path = folder / entry.name
        if not entry.is_dir():
            yield path
        elif is_run(path):
            continue
        elif path.suffix.lower() in SUFFIXES:
            yield path  # a folder that claims to be an image
        else:
            yield from walk(path, (*above, own))


def is_run(folder: Path) -> bool:
    """Whether a folder is one that a recipe has made: its config.json names a task and labels."""
    if not (folder / "config.json").is_file() or not (folder / "labels.txt").is_file():
        return False
    with contextlib.suppress(ValueError, OSError):
        return {"task", "labels", "data"} <= read_config(folder).keys()
    return False


@functools.cache
def split_of(part: str) -> str | None:
    """Return train, val or test, where a name says so: train, instances_val2017, testannot.

    Of a name with other words it has to be the last one: a train station is no split.
    """
    words = [word for word in words_of(part) if len(word) > 1]
    found = {SPLITS[word] for word in words if word in SPLITS}
    others = [w for w in words if w not in {*SPLITS, *IMAGE_WORDS, *MASK_WORDS, *FILLERS}]
    last = bool(words) and words[-1] in SPLITS and " " not in part
    return found.pop() if len(found) == 1 and (last or not others) else None


@functools.cache
def split_of_parts(folders: tuple[str, ...]) -> str | None:
    """Return the split that the innermost of the folders names which names one."""
    return next((split for part in reversed(folders) if (split := split_of(part))), None)
