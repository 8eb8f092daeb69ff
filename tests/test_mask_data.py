"""Masks as people have them: what is read, what is left out, and what is said of it."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from kzoo.recipes.data.augment import Augment
from kzoo.recipes.data.formats.mask_layout import VOC_LABELS
from kzoo.recipes.data.images import decoded_once, forget_training_images, upright_size
from kzoo.recipes.data.mask_dataset import read_masks, read_test
from kzoo.recipes.data.masks.batches import MaskBatches
from kzoo.recipes.data.masks.drawn import area_of
from kzoo.recipes.data.masks.pairs import Masked, full_mask
from kzoo.recipes.evaluation.drawings import palette, write_mask
from kzoo.segmentation.masks import VOID

SIZE = (40, 30)  # (H, W)


def write_image(path: Path, size: tuple[int, int] = SIZE, **save) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    red, green, blue = zlib.crc32(str(path).encode()).to_bytes(4)[:3]  # no two are the same
    Image.new("RGB", size[::-1], (red, green, blue)).save(path, **save)


def mask(path: Path, ids: np.ndarray | None = None, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.zeros(SIZE, "uint8")
        ids[5:15, 5:15], ids[20:, :4] = 1, 255
    image = Image.fromarray(ids)
    if mode == "P":
        image = image.convert("P") if image.mode == "P" else image
        image.putpalette(palette().tobytes())
    image.save(path)


@pytest.fixture
def data(tmp_path) -> Path:
    """Ten good pairs and the names of two classes."""
    for i in range(10):
        write_image(tmp_path / "images" / f"{i}.jpg")
        mask(tmp_path / "masks" / f"{i}.png", mode="P" if i % 2 else "L")
    (tmp_path / "labels.txt").write_text("ground\nthing\n")
    return tmp_path


def test_pairs_in_two_folders(data):
    found = read_masks(data, val_fraction=0.3)
    assert found.labels == ("ground", "thing")
    assert (len(found.train), len(found.val)) == (7, 3)
    assert found.issues == ()
    void = 20 * 4
    assert found.pixels.tolist() == [7 * (40 * 30 - 100 - void), 700]
    assert str(found) == ("7 images to train on, 3 to validate (ground 91.1%, thing 8.9%)")
    again = read_masks(data, val_fraction=0.3, seed=1)
    assert {p.image for p in again.val} != {p.image for p in found.val}


def test_palettes_keep_their_indices(data):
    """A palette's colours are no class ids: [0, 1, 255] stays what it is."""
    for pair in read_masks(data).train:
        assert np.unique(full_mask(pair)).tolist() == [0, 1, 255]
        assert full_mask(pair)[10, 10] == 1


def test_train_and_val_folders(data):
    for split in ("train", "val"):
        for i in range(2):
            write_image(data / split / "images" / f"{split}{i}.jpg")
            mask(data / split / "masks" / f"{split}{i}.png")
    for part in ("images", "masks"):
        for path in (data / part).iterdir():
            path.unlink()
    found = read_masks(data)
    assert [p.image.stem for p in found.train] == ["train0", "train1"]
    assert [p.image.stem for p in found.val] == ["val0", "val1"]


def test_classes_without_names(data):
    (data / "labels.txt").unlink()
    ids = np.zeros(SIZE, "uint8")
    ids[:5] = 3
    mask(data / "masks" / "0.png", ids)
    found = read_masks(data, seed=1)
    assert found.labels == ("background", "class 1", "class 2", "class 3")
    assert "class 'class 2' has no pixel to train on" in " ".join(map(str, found.issues))


def test_pascal_voc(data):
    (data / "images").rename(data / "JPEGImages")
    (data / "masks").rename(data / "SegmentationClass")
    (data / "labels.txt").unlink()
    lists = data / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n")
    write_image(data / "JPEGImages" / "only_boxes.jpg")
    found = read_masks(data)
    assert found.labels == VOC_LABELS
    assert [p.image.stem for p in found.val] == ["3", "4"]
    assert not any("only_boxes" in str(issue) for issue in found.issues)


def as_jpeg(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("L").save(path.with_suffix(".jpg"))
    path.unlink()


BAD = {
    "of another size": (
        lambda d: mask(d / "masks" / "0.png", np.ones((20, 15), "uint8")),
        "0.png: has 15 x 20 px, 0.jpg has 30 x 40: left out",
    ),
    "beyond the classes": (
        lambda d: mask(d / "masks" / "0.png", np.full(SIZE, 7, "uint8")),
        "0.png: holds class id 7, and ids go to 1. Name it in the list of classes, or pass "
        "--void 7: left out",
    ),
    "with 16 bits, beyond": (
        lambda d: mask(d / "masks" / "0.png", np.full(SIZE, 26001, "uint16")),
        "0.png: holds class id 26001, and ids go to 1. Name it in the list of classes, or pass "
        "--void 26001: left out",
    ),
    "all void": (
        lambda d: mask(d / "masks" / "0.png", np.full(SIZE, 255, "uint8")),
        "0.png: holds nothing but void (255): left out",
    ),
    "missing": (
        lambda d: (d / "masks" / "0.png").unlink(),
        "0.jpg: has no mask: left out",
    ),
    "without an image": (
        lambda d: (d / "images" / "0.jpg").unlink(),
        "0.png: its image '0' is missing: left out",
    ),
    "in colours": (
        lambda d: write_image(d / "masks" / "0.png"),
        "0.png: in mode RGB, colours: a mask holds class ids (mode P or L): left out",
    ),
    "a JPEG": (
        lambda d: as_jpeg(d / "masks" / "0.png"),
        "0.jpg: a JPEG cannot be a mask: it blurs class ids. Use PNG: left out",
    ),
    "damaged": (
        lambda d: (d / "masks" / "0.png").write_bytes((d / "masks/0.png").read_bytes()[:60]),
        "0.png: damaged",
    ),
    "of a damaged image": (
        lambda d: (d / "images" / "0.jpg").write_bytes(b"\xff\xd8\xff"),
        "0.jpg: not an image that Pillow can read: left out",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_told(data, name):
    spoil, message = BAD[name]
    spoil(data)
    found = read_masks(data)
    assert len(found.train) + len(found.val) == 9
    (issue,) = found.issues
    assert message in str(issue)


def test_16_bits_within_the_classes_are_read(data):
    mask(data / "masks" / "0.png", np.eye(40, 30, dtype="uint16"))
    assert read_masks(data).issues == ()


def test_masks_of_0_and_255(data):
    for i in range(10):
        mask(data / "masks" / f"{i}.png", np.eye(40, 30, dtype="uint8") * 255)
    found = read_masks(data)
    assert "255 is read as class 1" in str(found.issues[0])
    assert found.pixels[1] == 8 * 30


ERRORS = {
    "nothing": (lambda d: (d / "masks").rename(d / "other"), "no masks that kzoo reads"),
    "one class": (
        lambda d: [mask(d / "masks" / f"{i}.png", np.zeros(SIZE, "uint8")) for i in range(10)],
        r"no two classes to tell apart\. First of 1 issue: .*'thing' has no pixel",
    ),
    "names": (lambda d: (d / "labels.txt").write_text("a\na\n"), "must name from 2 to 254 classes"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_learnt_from_is_an_error(data, name):
    spoil, message = ERRORS[name]
    spoil(data)
    with pytest.raises(ValueError, match=message):
        read_masks(data)


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match=r"There is no .*images/ and masks/"):
        read_masks(tmp_path / "nowhere")


def test_coco(tmp_path):
    """A polygon, run lengths as a list and packed, a crowd; the smaller object is on top."""
    coco = pytest.importorskip("pycocotools.mask")
    write_image(tmp_path / "train" / "a.jpg")
    write_image(tmp_path / "val" / "b.jpg")
    small = np.zeros(SIZE, "uint8", order="F")
    small[12:14, 12:14] = 1
    packed = coco.encode(small)
    packed["counts"] = packed["counts"].decode()
    # Column by column: 10 rows of nothing, then 5 of the object, in the last column but one.
    runs = {"size": list(SIZE), "counts": [28 * 40 + 10, 5, 25 + 40]}
    annotations = [
        {"category_id": 9, "area": 4, "segmentation": packed},
        {"category_id": 3, "area": 100, "segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]]},
        {"category_id": 9, "area": 5, "segmentation": runs, "iscrowd": 1},
        {"category_id": 9, "area": 5},
    ]
    for i, (split, name) in enumerate((("train", "a.jpg"), ("val", "b.jpg"))):
        content = {
            "images": [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
            "categories": [{"id": 9, "name": "dot"}, {"id": 3, "name": "box"}],
            "annotations": [{"id": j, "image_id": i, **a} for j, a in enumerate(annotations)],
        }
        (tmp_path / split / "annotations.json").write_text(json.dumps(content))
    found = read_masks(tmp_path)
    assert found.labels == ("background", "box", "dot")
    assert [len(found.train), len(found.val)] == [1, 1]
    expected = np.zeros(SIZE, int)
    expected[10:20, 10:20] = 1
    expected[12:14, 12:14] = 2
    expected[10:15, 28] = 255
    np.testing.assert_array_equal(full_mask(found.train[0]), expected)
    assert "1 objects have no segmentation" in " ".join(map(str, found.issues))


SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
WHOLE = {"size": [40, 30], "counts": [0, 1200]}
# Outlines that pycocotools refuses with a TypeError or a bare Exception, or draws from memory that
# nobody has written; the last one takes all there is.
UNDRAWN = {
    "two corners": ([[1, 1, 20, 20]], "a polygon of 4 numbers, not of three corners"),
    "one corner": ([[1, 1]], "a polygon of 2 numbers"),
    "no corner": ([[]], "a polygon of 0 numbers"),
    "half a corner": ([[*SQUARE, 5]], "a polygon of 9 numbers"),
    "texts": ([["a"] * 6], "a polygon with a corner that is not a number"),
    "not in a list": ([1, 1, 20, 1, 20, 20], "neither a polygon nor run lengths"),
    "a text": ("abc", "neither a polygon nor run lengths"),
    "of another size": (
        {"size": [20, 15], "counts": [10, 290]},
        "run lengths of size [20, 15], the image's is [40, 30]",
    ),
    "too short": (
        {**WHOLE, "counts": [10, 5]},
        "run lengths of 15 px in all, the image has 1200",
    ),
    "too long": ({**WHOLE, "counts": [10, 1500]}, "run lengths of 1510 px in all"),
    "negative": (
        {**WHOLE, "counts": [10, -5, 1195]},
        "broken run lengths: one of them is negative",
    ),
    "fractions": (
        {**WHOLE, "counts": [600.5, 599.5]},
        "broken run lengths: they are not whole numbers",
    ),
    "packed, too short": ({**WHOLE, "counts": "11"}, "run lengths of 2 px in all"),
    "packed, cut off": ({**WHOLE, "counts": "1`"}, "broken run lengths: they end within a number"),
    "packed, in German": ({**WHOLE, "counts": "ü"}, "broken run lengths: 'ascii'"),
    "far away": (
        [[1e12, 1, 1e12, 30, 1, 1]],
        "a polygon with a corner that is not a number or beyond 100000 px",
    ),
}


def coco_file(folder: Path, more: list[dict], **image) -> Path:
    """Ten images with a square on each; `more` annotations of the first."""
    ids = range(10)
    for i in ids:
        write_image(folder / f"{i}.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 30} for i in ids]
    squares = [
        {"id": i, "image_id": i, "category_id": 1, "area": 100, "segmentation": [SQUARE]}
        for i in ids
    ]
    more = [{"id": 77 + i, "image_id": 0, "category_id": 1, **a} for i, a in enumerate(more)]
    images[0] |= image
    content = {
        "images": images,
        "annotations": [*more, *squares],
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "masks.json").write_text(json.dumps(content))
    return folder


def first_mask(found) -> np.ndarray:
    return full_mask(next(p for p in (*found.train, *found.val) if p.image.stem == "0"))


@pytest.mark.parametrize("name", UNDRAWN)
def test_a_coco_outline_that_cannot_be_drawn_is_told(name, tmp_path):
    outline, why = UNDRAWN[name]
    found = read_masks(coco_file(tmp_path, [{"segmentation": outline}]))
    (text,) = map(str, found.issues)
    assert "masks.json: 1 objects have outlines that cannot be drawn (first: annotation 77" in text
    assert f"annotation 77 of 0.jpg: {why}" in text
    assert text.endswith("): left out")
    expected = np.zeros(SIZE, int)
    expected[10:20, 10:20] = 1
    np.testing.assert_array_equal(first_mask(found), expected)


def test_of_a_coco_object_what_can_be_drawn_is_kept(tmp_path):
    """Outlines traced from masks come with specks of one or two points."""
    pieces = [[1, 1], [0, 30, 5, 30, 5, 40, 0, 40], [2, 2, 3, 3]]
    found = read_masks(coco_file(tmp_path, [{"segmentation": pieces}]))
    assert "1 objects have outlines that cannot be drawn" in str(found.issues[0])
    assert first_mask(found)[30:40, :5].all()
    assert first_mask(found).sum() == 100 + 50


def test_coco_masks_of_unknown_classes_and_images(tmp_path):
    corner = [[0, 0, 4, 0, 4, 4, 0, 4]]
    more = [
        {"segmentation": corner, "category_id": 9},
        {"segmentation": corner, "category_id": None},
        {"segmentation": corner, "image_id": 99},
        {"segmentation": []},
    ]
    found = read_masks(coco_file(tmp_path, more))
    message = "\n".join(map(str, found.issues))
    for expected in (
        "masks.json: 1 objects of unknown class 'category 9': left out, their pixels are void",
        "masks.json: 1 objects of unknown class 'category None': left out",
        "masks.json: 1 objects on images that it does not name: left out",
        "masks.json: 1 objects have no segmentation: left out",
    ):
        assert expected in message
    assert len(found.issues) == 4
    assert found.labels == ("background", "square")
    assert (first_mask(found)[:4, :4] == 255).all()  # neither a square nor background


@pytest.mark.parametrize("height", [-3, 10**9])
def test_a_coco_image_of_another_size_is_told(height, tmp_path):
    found = read_masks(coco_file(tmp_path, [], height=height))
    assert f"masks.json: has 30 x {height} px, 0.jpg has 30 x 40: left out" in str(found.issues[0])
    assert len(found.train) + len(found.val) == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"annotations": [}', r"b\.json is broken at line 1, column 18"),
        (
            b'{"annotations": [], "images": [], "categories": [{"id": "x", "name": "y"}]}',
            r"b\.json .*ValueError",
        ),
        (b'{"annotations": [4], "categories": [], "images": []}', r"b\.json .*AttributeError"),
    ],
)
def test_a_broken_coco_file_is_named(content, message, tmp_path):
    coco_file(tmp_path, [])
    (tmp_path / "b.json").write_bytes(content)
    (tmp_path / "c.json").write_text('{"annotations": [], "categories": [], "images": []}')
    with pytest.raises(ValueError, match=message):
        read_masks(tmp_path)


def test_the_name_of_a_coco_image_is_no_split(tmp_path):
    coco_file(tmp_path, [], file_name="val thorens.jpg")
    (tmp_path / "0.jpg").rename(tmp_path / "val thorens.jpg")
    assert len(read_masks(tmp_path, val_fraction=0.3).val) == 3


def test_from_train_alone_some_are_drawn(data):
    (data / "train").mkdir()
    for part in ("images", "masks"):
        (data / part).rename(data / "train" / part)
    first, other = (read_masks(data, seed=seed) for seed in (0, 1))
    assert (len(first.train), len(first.val)) == (8, 2)
    assert {p.image for p in first.val} != {p.image for p in other.val}


def test_labels_in_another_encoding_and_of_no_text(data):
    (data / "labels.txt").write_bytes("Boden\nLöwe\n".encode("latin-1"))
    found = read_masks(data)
    assert found.labels == ("Boden", "Löwe")
    assert "labels.txt: is not in UTF-8: read as cp1252" in str(found.issues[0])
    (data / "labels.txt").write_bytes(b"\x00\xff\x00\x00" * 9)
    with pytest.raises(ValueError, match=r"labels\.txt is not a text file"):
        read_masks(data)


def test_a_turned_image_has_the_size_that_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "a.jpg", exif=exif)
    assert upright_size(tmp_path / "a.jpg") == (30, 40)


def test_images_and_masks_move_together(tmp_path):
    """Images whose red tells the class: after any move the mask is where the red is."""
    rng = np.random.default_rng(0)
    for i in range(4):
        ids = np.kron(rng.integers(0, 2, (6, 6)), np.ones((20, 20), int)).astype("uint8")
        mask(tmp_path / "masks" / f"{i}.png", ids)
        red = np.stack([ids * 200, np.full_like(ids, 60), np.full_like(ids, 60)], -1)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(red).save(tmp_path / "images" / f"{i}.png")
    found = read_masks(tmp_path)
    pairs = (*found.train, *found.val)
    augment = Augment(zoom=0.5, stretch=0.3, turn=20, colour=0)
    batches = MaskBatches(pairs, 96, batch_size=4, augment=augment, margin=1.25)
    (images, masks), (others, _) = (batches.shuffled(0, epoch)[0] for epoch in (0, 1))
    assert images.shape == (4, 96, 96, 3)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 1, 255}
    known = masks != 255
    assert 0.5 < known.mean() <= 1
    agree = (images[..., 0] > 100) == (masks == 1)
    assert agree[known].mean() > 0.97  # but for what bilinear resampling does to edges
    again = batches.shuffled(0, 0)[0]
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], masks)
    assert not np.array_equal(others, images)
    plain = MaskBatches(pairs, 96, batch_size=3)
    assert [len(plain[i][1]) for i in range(len(plain))] == [3, 1]


def test_masks_are_resampled_by_nearest_only(data):
    pairs = read_masks(data).train
    assert np.unique(Masked(pairs, 97)[0][1]).tolist() == [0, 1, 255]


def test_masks_are_kept_and_freed_with_their_images(data):
    pairs = read_masks(data).train
    with decoded_once():
        masked, val = Masked(pairs, 40), Masked(pairs[:1], 32)
        image, mask = masked[0]
        kept = masked.images.decoded
        assert 40 * 40 * 3 < kept.bytes < 40 * 40 * 4  # masks are compressed
        assert masked[0][0] is image
        np.testing.assert_array_equal(masked[0][1], mask)
        assert val[0][1].shape == (32, 32)
        forget_training_images(32)
        assert {size for _, size, *_ in kept.images} == {32}
        np.testing.assert_array_equal(masked[0][1], mask)


def test_a_written_mask_reads_back(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, SIZE).astype("uint8")
    write_mask(tmp_path / "a.png", ids)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), ids)
    # The colours of VOC's first classes, as its development kit prints them.
    assert palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette()[255].tolist() == [224, 224, 192]


def striped(folder: Path, values: list, count: int = 4) -> Path:
    """Images, and masks of horizontal stripes of these grey values or colours."""
    for i in range(count):
        write_image(folder / "images" / f"{i}.png")
        stripes = np.array(values, "uint8")[np.arange(SIZE[0]) * len(values) // SIZE[0]]
        mask(folder / "masks" / f"{i}.png", np.repeat(stripes[:, None], SIZE[1], axis=1))
    return folder


@pytest.mark.parametrize(
    "values", [[(0, 0, 0), (128, 0, 0), (0, 128, 0)], [0, 7, 33]], ids=["colours", "sparse ids"]
)
def test_masks_to_test_on_are_read_as_those_that_were_trained_on(values, tmp_path):
    train = striped(tmp_path / "a", values)
    found = read_masks(train, test=striped(tmp_path / "b", values))
    assert len(found.test) == 4
    assert np.unique(found.test[0].mask.read()).tolist() == [0, 1, 2]
    colour = [0, 5, 90] if isinstance(values[0], int) else [(0, 0, 0), (0, 0, 9), (1, 1, 90)]
    with pytest.raises(ValueError, match="which the model does not"):
        read_masks(train, test=striped(tmp_path / "c", colour))


@pytest.mark.parametrize(
    ("values", "void", "expected"),
    [
        ([0, 127, 255], None, [0, 1, 2]),  # 255 was void, and what it marks lost
        ([0, 127, 255], 255, [0, 1, VOID]),
        ([0, 128, 255], 128, [0, VOID, 1]),  # a trimap
        ([0, 85, 170, 255], None, [0, 1, 2, 3]),
        ([0, 85, 170, 255], 255, [0, 1, 2, VOID]),
        ([0, 1, 255], None, [0, 1, VOID]),
    ],
)
def test_evenly_spaced_grey_values_are_classes(values, void, expected, tmp_path):
    found = read_masks(striped(tmp_path, values), void=void)
    assert [*dict.fromkeys(found.train[0].mask.read()[:, 0].tolist())] == expected
    assert len(found.labels) == len(set(expected) - {VOID})


BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
THREE = "name,r,g,b\nred,255,0,0\ngreen,0,255,0\nground,0,0,0\n"


@pytest.mark.parametrize(
    ("masks", "label_map", "expected"),
    [
        # Black, blue and green are below 65536 as numbers, and blue is 255, which was void.
        ([[BLACK, GREEN, BLUE]] * 2, "", [[0, 2, 1]] * 2),
        ([[BLACK, GREEN, RED], [BLACK]], "", [[0, 1, 2], [0]]),  # an image without objects
        ([[RED, GREEN], [BLACK], [GREEN, BLACK]], THREE, [[0, 1], [2], [1, 2]]),
        ([[(i, i, i) for i in range(3)]] * 2, THREE, [[0, 1, 2]] * 2),  # ids, saved in RGB
    ],
    ids=["blue", "black", "black of a label map", "ids"],
)
def test_masks_in_rgb_are_read_by_colours_where_they_are_grey_too(
    masks, label_map, expected, tmp_path
):
    for k, values in enumerate(masks):
        for name in ("train", "val"):
            striped(tmp_path / name / str(k), values, count=1)
    if label_map:
        (tmp_path / "class_dict.csv").write_text(label_map)
    found = read_masks(tmp_path)
    ids = [pair.mask.read()[:, 0] for pair in sorted(found.train, key=lambda pair: pair.image)]
    assert [[*dict.fromkeys(column.tolist())] for column in ids] == expected


def test_255_is_void_where_a_model_has_more_classes_than_two(tmp_path):
    data = striped(tmp_path / "a", [0, 255])
    found, _ = read_test(data, ("background", "road", "car"))
    assert np.unique(found[0].mask.read()).tolist() == [0, VOID]


def test_the_area_of_packed_run_lengths_is_known():
    """Where a file gives no areas: what is small is drawn over what is large."""
    inside = np.zeros(SIZE, "uint8")
    inside[5:25, 5:25] = 1
    packed = coco.encode(np.asfortranarray(inside))
    outline = {"counts": packed["counts"].decode(), "size": [*SIZE]}
    assert area_of((outline,)) == 400


def test_roboflow_names_the_values_of_masks(tmp_path):
    for split in ("train", "valid"):
        for i in range(3):
            name = f"{split}{i}_jpg.rf.abc"
            write_image(tmp_path / split / f"{name}.png")
            mask(tmp_path / split / f"{name}_mask.png")
        (tmp_path / split / "_classes.csv").write_text(
            "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"
        )
    assert read_masks(tmp_path).labels == ("background", "cat", "dog")


def test_named_classes_of_masks_whose_void_is_not_clear(tmp_path):
    """0, 127 and 255: a trimap's middle is void, or 255 is, as by default."""
    text = "background\ncat\n"
    (striped(tmp_path, [0, 127, 255]) / "labels.txt").write_text(text)
    with pytest.raises(ValueError, match=r"are background and cat.* --void 127 or --void 255"):
        read_masks(tmp_path)
    for void, expected in ((127, [0, VOID, 1]), (255, [0, 1, VOID])):
        ids = read_masks(tmp_path, void=void).train[0].mask.read()
        assert [*dict.fromkeys(ids[:, 0].tolist())] == expected


def test_a_value_beside_void_without_names_is_told(tmp_path):
    found = read_masks(striped(tmp_path, [0, 100, 255]))
    assert [*dict.fromkeys(found.train[0].mask.read()[:, 0].tolist())] == [0, 1, VOID]
    assert "100 is read as class 1, 255 as void (--void 100" in str(found.issues[0])


def test_a_mask_of_several_pages_is_told(tmp_path):
    data = striped(tmp_path, [0, 1])
    file = sorted((data / "masks").iterdir())[0]
    with Image.open(file) as page:
        pages = [page.copy(), page.copy()]
    pages[0].save(file.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    file.unlink()
    (issue,) = read_masks(data).issues
    assert (issue.path.suffix, issue.reason) == (".tif", "holds 2 frames: the first is read")
