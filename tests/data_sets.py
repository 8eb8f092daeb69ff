"""Small data sets in every layout, of one scene: what any of them is read as is known."""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
Boxes = dict[str, list[tuple[str, tuple[int, int, int, int]]]]  # image: [(class, x0 y0 x1 y1)]
SCENE: Boxes = {
    "train/a": [("cat", (4, 8, 20, 40)), ("dog", (30, 10, 60, 30))],
    "train/b": [("dog", (0, 0, 64, 48))],
    "train/c": [("cat", (10, 20, 30, 40))],
    "val/a": [("cat", (2, 2, 12, 12))],
    "val/d": [("dog", (8, 8, 40, 40)), ("cat", (41, 9, 63, 47))],
    "test/a": [("dog", (5, 5, 25, 25))],
    "test/e": [("cat", (6, 6, 46, 36))],
}
LABELS = ("cat", "dog")


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), **save) -> Path:
    """Noise that no other image has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    Image.fromarray(noise).save(path, **save)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def corners(box: tuple[int, int, int, int]) -> list[int]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def as_coco(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    """One json a split, in annotations/, images in a folder a split."""
    images_of(root, scene, sizes, "images/{}")
    for split in sorted({name.split("/")[0] for name in scene}):
        own = [name for name in scene if name.startswith(f"{split}/")]
        entries = [
            {"id": i, "file_name": f"{Path(name).name}.jpg", "height": size_of(name, sizes)[1],
             "width": size_of(name, sizes)[0]}
            for i, name in enumerate(own)
        ]  # fmt: skip
        notes = [
            {"id": 100 * i + j, "image_id": i, "category_id": labels_of(scene).index(label) + 1,
             "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
             "area": (box[2] - box[0]) * (box[3] - box[1]), "iscrowd": 0,
             "segmentation": [corners(box)]}
            for i, name in enumerate(own) for j, (label, box) in enumerate(scene[name])
        ]  # fmt: skip
        kinds = [{"id": i + 1, "name": label} for i, label in enumerate(labels_of(scene))]
        content = {"images": entries, "annotations": notes, "categories": kinds}
        text(
            root / "annotations" / f"instances_{split}.json",
            json.dumps(content, ensure_ascii=False),
        )
    return root


def labels_of(scene: Boxes) -> tuple[str, ...]:
    return tuple(sorted({label for objects in scene.values() for label, _ in objects}))


def size_of(name: str, sizes: dict | None) -> tuple[int, int]:
    return sizes[name] if sizes else (WIDTH, HEIGHT)


def images_of(root: Path, scene: Boxes, sizes: dict | None, inside: str) -> None:
    for name in scene:
        path = root / f"{inside.format(name)}.jpg"
        if not path.exists():
            image(path, size_of(name, sizes))


def as_voc(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    """JPEGImages, Annotations and ImageSets/Main: names are of the whole set."""
    flat = {name.replace("/", "_"): name for name in scene}
    lists: dict[str, list[str]] = {}
    for stem, name in flat.items():
        path = root / "JPEGImages" / f"{stem}.jpg"
        if not path.exists():
            image(path, size_of(name, sizes))
        lists.setdefault(name.split("/")[0], []).append(stem)
        width, height = size_of(name, sizes)
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
            f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
            for label, b in scene[name]
        )
        text(
            root / "Annotations" / f"{stem}.xml",
            f"<annotation><folder>JPEGImages</folder><filename>{stem}.jpg</filename><size>"
            f"<width>{width}</width><height>{height}</height></size>{objects}</annotation>",
        )
    for split, stems in lists.items():
        text(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems))
    return root


def as_yolo(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    images_of(root, scene, sizes, "images/{}")
    for name, objects in scene.items():
        width, height = size_of(name, sizes)
        lines = [
            f"{labels_of(scene).index(label)} {(b[0] + b[2]) / 2 / width:.8f} "
            f"{(b[1] + b[3]) / 2 / height:.8f} {(b[2] - b[0]) / width:.8f} "
            f"{(b[3] - b[1]) / height:.8f}"
            for label, b in objects
        ]
        text(root / "labels" / f"{name}.txt", "\n".join(lines))
    names = "".join(f"  {i}: {label}\n" for i, label in enumerate(labels_of(scene)))
    splits = "".join(f"{s}: images/{s}\n" for s in sorted({n.split("/")[0] for n in scene}))
    text(root / "data.yaml", f"path: .\n{splits}names:\n{names}")
    return root


def as_labelme(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    images_of(root, scene, sizes, "{}")
    for name, objects in scene.items():
        width, height = size_of(name, sizes)
        shapes = [
            {"label": label, "points": [[b[0], b[1]], [b[2], b[3]]], "shape_type": "rectangle"}
            for label, b in objects
        ]
        content = {
            "version": "5.4.1", "flags": {}, "shapes": shapes, "imageData": None,
            "imagePath": f"..\\{name}.jpg".replace("/", "\\"), "imageHeight": height,
            "imageWidth": width,
        }  # fmt: skip
        text(root / f"{name}.json", json.dumps(content, ensure_ascii=False))
    return root


def as_cvat(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    images_of(root, scene, sizes, "images/{}")
    labels = "".join(f"<label><name>{label}</name></label>" for label in labels_of(scene))
    entries = ""
    for i, (name, objects) in enumerate(scene.items()):
        width, height = size_of(name, sizes)
        boxes = "".join(
            f'<box label="{label}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"/>'
            for label, b in objects
        )
        entries += f'<image id="{i}" name="{name}.jpg" width="{width}" height="{height}">{boxes}'
        entries += "</image>"
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    text(root / "annotations.xml", f"<annotations><version>1.1</version>{meta}{entries}"
         "</annotations>")  # fmt: skip
    return root


def as_createml(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    for split in sorted({name.split("/")[0] for name in scene}):
        own = [name for name in scene if name.startswith(f"{split}/")]
        content = []
        for name in own:
            path = root / f"{name}.jpg"
            if not path.exists():
                image(path, size_of(name, sizes))
            notes = [
                {"label": label, "coordinates": {
                    "x": (b[0] + b[2]) / 2, "y": (b[1] + b[3]) / 2, "width": b[2] - b[0],
                    "height": b[3] - b[1]}}
                for label, b in scene[name]
            ]  # fmt: skip
            content.append({"image": f"{Path(name).name}.jpg", "annotations": notes})
        text(root / split / "_annotations.createml.json", json.dumps(content, ensure_ascii=False))
    return root


def as_open_images(root: Path, scene: Boxes = SCENE, sizes: dict | None = None) -> Path:
    images_of(root, scene, sizes, "{}")
    for split in sorted({name.split("/")[0] for name in scene}):
        lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"]
        for name in (name for name in scene if name.startswith(f"{split}/")):
            width, height = size_of(name, sizes)
            for label, b in scene[name]:
                code = f"/m/{labels_of(scene).index(label)}"
                lines.append(
                    f"{Path(name).name},xclick,{code},1,{b[0] / width:.8f},{b[2] / width:.8f},"
                    f"{b[1] / height:.8f},{b[3] / height:.8f},0,0"
                )
        text(root / f"{split}-annotations-bbox.csv", "\n".join(lines))
    codes = (f"/m/{i},{label}\n" for i, label in enumerate(labels_of(scene)))
    text(root / "class-descriptions-boxable.csv", "".join(codes))
    return root


LAYOUTS = {
    "coco": as_coco, "voc": as_voc, "yolo": as_yolo, "labelme": as_labelme, "cvat": as_cvat,
    "createml": as_createml, "csv": as_open_images,
}  # fmt: skip
