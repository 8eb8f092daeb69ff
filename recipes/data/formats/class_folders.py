"""One folder of images for each class, perhaps below train/, val/ and test/."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from kzoo.recipes.data.images import is_candidate, why_unread
from kzoo.recipes.data.layout import PASSED_OVER, SPLITS, folded, is_run, key_part, split_of, walk
from kzoo.recipes.data.splits import GUARD
from kzoo.recipes.data.text import Issue


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image, its label, and the split that it is given for."""

    path: Path
    label: str
    split: str | None


def read_folder(data: Path, issues: list[Issue], *, train: bool = True) -> Iterable[Labelled]:
    """Yield every file below the class folders of `data`, in the order of their names."""
    data = unwrapped(data)
    splits = split_folders(data)
    if train and splits and "train" not in splits.values():
        given = next(iter(splits)).name
        raise ValueError(f"{data} holds {given}/ but no train/.")
    for table in sorted(data.glob("*.[ct]sv"))[:1]:
        unread = (
            "is not read, as the folders beside it are the classes. If it names the classes, give "
            "it as DATA"
        )
        issues.append(Issue(table, unread))
    for other in subfolders(data) if splits else ():
        if other not in splits:
            issues.append(Issue(other, "is neither train/, val/ nor test/: left out"))
    places: dict[Path, str | None] = {**splits} if splits else {data: None}
    nested: list[tuple[Path, list[str]]] = []
    for whole, split in places.items():
        place = whole if split is None else within_split(whole)
        folders = subfolders(place)
        others = [p for p in sorted(place.iterdir()) if p not in folders and p.name[0] != "."]
        for hidden in sorted(place.glob(".*/")):
            if any(map(is_candidate, hidden.glob("*"))):
                issues.append(Issue(hidden, "holds images, and is a hidden folder: left out"))
        issues += [Issue(path, reason) for path in others if (reason := why_unread(path))]
        strays = [path for path in others if is_candidate(path)]
        if strays:
            more = f" ({len(strays)} in all)" if len(strays) > 1 else ""
            reason = f"stands beside the class folders: left out{more}"
            issues.append(Issue(strays[0], reason))
        for folder in folders:
            yield from of_one_class(folder, split, issues, nested)
    if nested:
        folder, inner = nested[0]
        reason = (
            f"has its images in folders within ({', '.join(inner[:3])}): read as one class "
            f"({len(nested)} in all). If those are the classes, give a folder of them as DATA"
        )
        issues.append(Issue(folder, reason))


def of_one_class(
    folder: Path, split: str | None, issues: list[Issue], nested: list[tuple[Path, list[str]]]
) -> Iterable[Labelled]:
    """Yield the images of a class; one whose images are all in folders within goes to `nested`."""
    files = list(walk(folder))
    images = [path for path in files if is_candidate(path) or is_nameless_image(path)]
    for path in files:
        if reason := why_unread(path):
            issues.append(Issue(path, reason))
    if not images:
        issues.append(Issue(folder, "holds no images: the class is left out"))
    parts = [path.relative_to(folder).parts for path in images]
    within = sorted({own[0] for own in parts if folded(own[0]) not in SPLITS})
    if len(within) > 1 and all(len(own) > 1 for own in parts):
        nested.append((folder, within))
    for path in images:
        # A class may itself hold train/ and test/: cats/test/1.jpg.
        inner = [SPLITS.get(folded(part)) for part in path.relative_to(folder).parts[:-1]]
        own = max([split, *inner], key=GUARD.__getitem__)
        label = folder.name.encode("utf-8", "backslashreplace").decode()  # bytes that are no text
        yield Labelled(path, label, own)


def has_class_folders(data: Path) -> bool:
    """Whether there are at least two folders that are classes, or folders of splits with such."""
    if not data.is_dir():
        return False
    data = unwrapped(data)
    splits = split_folders(data)
    if splits:
        return any(subfolders(path) for path in splits)
    own = [path for path in subfolders(data) if key_part(path.name) and not split_of(path.name)]
    return len(own) > 1 or (len(subfolders(data)) > 1 and not any(data.glob("*.[ct]sv")))


def is_nameless_image(path: Path) -> bool:
    """Whether a file without a suffix begins like a JPEG, PNG, GIF or WebP."""
    if path.suffix or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8")) or head[8:] == b"WEBP"


def subfolders(folder: Path) -> list[Path]:
    """Return the folders within, without hidden ones and those of runs and caches."""
    return sorted(
        path for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
        and path.name not in (*PASSED_OVER, "__pycache__") and not is_run(path)
    )  # fmt: skip


def within_split(place: Path) -> Path:
    """Return the folder of classes of a split: of train/train/cats the second."""
    inner = subfolders(place)
    alone = len(inner) == 1 and (folded(inner[0].name) in SPLITS or split_of(inner[0].name))
    return inner[0] if alone and subfolders(inner[0]) else place


def unwrapped(data: Path) -> Path:
    """Return the folder within, where a folder holds nothing but one folder of folders."""
    for _ in range(8):
        inner = subfolders(data)
        if len(inner) != 1 or not subfolders(inner[0]):
            break
        if any(is_candidate(path) for path in (*data.iterdir(), *inner[0].iterdir())):
            break
        if folded(inner[0].name) in SPLITS:
            break
        data = inner[0]
    return data


SPLIT_FOLDER = re.compile(r"(?:\w+[_-])?({})(?:[_-]?(?:set|data|images?|imgs?|\d+))*".format(
    "|".join(sorted(SPLITS, key=len, reverse=True))))  # fmt: skip


def split_folders(data: Path) -> dict[Path, str]:
    """Return the folders within that are called train, val or test, or much like it.

    A folder of images among other folders of images is a class that is called so: a train.
    """
    folders = subfolders(data)
    plain = {path: SPLITS[folded(path.name)] for path in folders if folded(path.name) in SPLITS}
    classes = [path for path in folders if path not in plain and holds_images(path)]
    if classes:
        plain = {path: split for path, split in plain.items() if not holds_images(path)}
    like = {
        path: split for path in folders
        if SPLIT_FOLDER.fullmatch(folded(path.name)) and (split := split_of(path.name))
        and subfolders(path)
    }  # fmt: skip
    return like | plain if len(set(like.values())) > 1 else plain


def holds_images(folder: Path) -> bool:
    """Whether there are images in a folder itself, and no folders."""
    return not subfolders(folder) and any(is_candidate(path) for path in folder.iterdir())
