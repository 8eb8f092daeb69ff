"""Packed images: the same as the files they came from, and no damage goes unnoticed."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kzoo.recipes.cli import main
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import Images, read_image
from kzoo.recipes.data.mask_dataset import read_masks, read_test
from kzoo.recipes.data.masks.pairs import Masked, full_mask
from kzoo.recipes.data.packed import DamagedError, check, open_packed, sha256
from kzoo.recipes.data.packing import join, pack

pytest.importorskip("array_record", reason="kzoo[large] is not installed")


def noise(path, seed, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype="uint8")
    Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes, 24 images, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        noise(folder / "a" / f"{i}.png", i)
        noise(folder / "b" / f"{i}.png", 100 + i)
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8")
    return folder


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "photos"
    pack(photos, out, shard_mb=0.03)  # some five images each
    return out


@pytest.fixture
def copied(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copied")


def shards(folder, split="train"):
    return sorted(folder.glob(f"{split}-*.array_record"))


def hurt(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_classes_splits_names_and_bytes_are_those_of_the_folder(photos, packed):
    folder, again = read_dataset(photos), read_dataset(packed)
    assert len(shards(packed)) > 2
    assert again.labels == folder.labels
    assert [str(d) for d in again.issues] == [str(d) for d in folder.issues]
    for one, other in ((folder.train, again.train), (folder.val, again.val)):
        np.testing.assert_array_equal(other.targets, one.targets)
        for path, record in zip(one.paths, other.paths, strict=True):
            assert record.name == str(path)
            assert record.open().read() == path.read_bytes()
            np.testing.assert_array_equal(read_image(record, 32), read_image(path, 32))


def test_of_any_number_of_images_none_stays_in_memory(packed):
    images = Images(read_dataset(packed).train.paths, 32)
    assert images[:].shape == (20, 32, 32, 3)
    assert not images.decoded.images


def test_the_shorter_side_becomes_as_small_as_asked(tmp_path):
    for name in ("a", "b"):
        for i in range(2):
            noise(tmp_path / "in" / name / f"{i}.png", i, (300, 120))
            noise(tmp_path / "in" / name / f"small{i}.png", i, (50, 50))
    pack(tmp_path / "in", tmp_path / "out", side=64)
    sizes = set()
    for record in read_dataset(tmp_path / "out").train.paths:
        with Image.open(record.open()) as image:
            sizes.add((image.format, image.size))
    assert sizes == {("JPEG", (160, 64)), ("PNG", (50, 50))}


def test_checksums_are_of_the_bytes_on_the_disk(packed):
    """As `sha256sum` would say."""
    for file in json.loads((packed / "packed.json").read_text())["files"]:
        path = packed / file["name"]
        assert (path.stat().st_size, sha256(path)) == (file["bytes"], file["sha256"])
    assert not check(packed).damage


class TestDamage:
    def test_is_named_when_read(self, copied):
        shard = shards(copied)[1]
        hurt(shard)
        data = read_dataset(copied)
        with pytest.raises(DamagedError, match=f"{shard.name} is damaged.*damaged=skip"):
            Images(data.train.paths, 16)[:]

    def test_of_a_whole_shard_is_named_at_once(self, copied):
        cut, gone = shards(copied)[:2]
        cut.write_bytes(cut.read_bytes()[:-100])
        with pytest.raises(DamagedError, match=rf"{cut.name} is damaged: .* bytes long"):
            read_dataset(copied)
        cut.unlink()
        gone.unlink()
        with pytest.raises(DamagedError, match=f"{cut.name} is damaged: missing"):
            read_dataset(copied)

    def test_is_left_out_where_asked_and_remarked_on(self, packed, copied):
        bad = shards(copied)[1]
        hurt(bad)
        whole, rest = read_dataset(packed), read_dataset(copied, damaged="skip")
        files = json.loads((packed / "packed.json").read_text())["files"]
        counts = [f["records"] for f in files if f["split"] == "train" and f["records"]]
        lost = range(counts[0], counts[0] + counts[1])
        left = [i for i in range(len(whole.train)) if i not in lost]
        assert [r.name for r in rest.train.paths] == [whole.train.paths[i].name for i in left]
        np.testing.assert_array_equal(rest.train.targets, whole.train.targets[left])
        assert f"{bad.name}: damaged" in str(rest.issues[-1])
        assert Images(rest.train.paths, 16)[:].shape[0] == len(left)

    def test_is_what_the_command_reads_back(self, copied, capsys):
        assert main(["pack", str(copied)]) == 0
        assert "24 images" in capsys.readouterr().out
        hurt(shards(copied)[0])
        assert main(["pack", str(copied)]) == 1
        captured = capsys.readouterr()
        assert f"{shards(copied)[0].name}: its bytes have changed" in captured.out
        assert "1 damaged files" in captured.err

    def test_of_what_is_said_of_the_images_cannot_be_skipped(self, copied):
        hurt(copied / "train.npz")
        with pytest.raises(DamagedError, match=r"train\.npz is damaged"):
            read_dataset(copied, damaged="skip")

    def test_of_the_index(self, copied):
        (copied / "packed.json").write_text("{")
        with pytest.raises(DamagedError, match=r"packed\.json"):
            read_dataset(copied)


class TestJoined:
    def test_parts_are_one_after_the_other_and_stay_where_they_are(self, packed, copied, tmp_path):
        assert main(["pack", str(packed), str(copied), str(tmp_path / "all")]) == 0
        one, both = read_dataset(packed), read_dataset(tmp_path / "all")
        assert not shards(tmp_path / "all")
        assert len(both.train) == 2 * len(one.train)
        np.testing.assert_array_equal(both.train.targets, np.tile(one.train.targets, 2))
        for i, record in enumerate(both.train.paths):
            assert record.open().read() == one.train.paths[i % len(one.train)].open().read()
        hurt(shards(copied)[0])
        assert shards(copied)[0].name in str(check(tmp_path / "all"))

    def test_of_other_classes_are_refused(self, packed, tmp_path):
        for i in range(8):
            noise(tmp_path / "in" / f"c{i % 2}" / f"{i}.png", i)
        pack(tmp_path / "in", tmp_path / "other")
        with pytest.raises(ValueError, match=r"cannot be joined, their labels differ: .*c0"):
            join([packed, tmp_path / "other"], tmp_path / "all")
        assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"task": "fly"},
            "one of classify, detect, multilabel, segment. Received: 'fly'",
        ),
        ({"side": 8}, "side must be at least 32 px. Received: 8"),
    ],
)
def test_what_cannot_be_packed(photos, tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        pack(photos, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_another_task_is_refused(photos, packed):
    with pytest.raises(ValueError, match=r"exists\. Choose another folder"):
        pack(photos, packed)
    with pytest.raises(ValueError, match="packed for `kzoo classify`"):
        open_packed(packed, "detect")


def test_boxes_come_back(tmp_path):
    rows = ["file,x_min,y_min,x_max,y_max,label"]
    for i in range(10):
        noise(tmp_path / "in" / f"{i}.png", i)
        rows += [f"{i}.png,4,{k},30,{k + 12},{'cat' if k else 'dog'}" for k in range(i % 3)]
    (tmp_path / "in" / "boxes.csv").write_text("\n".join(rows))
    folder = read_boxes(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", task="detect", shard_mb=0.01)
    again = read_boxes(tmp_path / "out")
    assert again.labels == folder.labels
    for split in ("train", "val"):
        for one, other in zip(getattr(folder, split), getattr(again, split), strict=True):
            np.testing.assert_array_equal(other.boxes, one.boxes)
            np.testing.assert_array_equal(other.labels, one.labels)
            assert (other.size, other.path.name) == (one.size, str(one.path))


def test_void_is_settled_when_masks_are_packed(tmp_path):
    """Given to a run on packed masks it was passed over."""
    for i in range(4):
        noise(tmp_path / "in" / "images" / f"{i}.png", i)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        mask = np.repeat(np.arange(40, dtype="uint8")[:, None] // 14, 48, axis=1)
        Image.fromarray(mask).save(tmp_path / "in" / "masks" / f"{i}.png")
    out = pack(tmp_path / "in", tmp_path / "out", task="segment", void=2).folder
    assert full_mask(read_masks(out).train[0]).max() == 255
    for read in (read_masks, lambda data, void: read_test(data, ("a", "b"), void=void)):
        with pytest.raises(ValueError, match="Give --void to kzoo pack"):
            read(out, void=2)


def test_masks_come_back(tmp_path):
    for i in range(6):
        noise(tmp_path / "in" / "images" / f"{i}.png", i)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        mask = np.random.default_rng(i).choice(np.array([0, 1, 255], "uint8"), (40, 48))
        Image.fromarray(mask).save(tmp_path / "in" / "masks" / f"{i}.png")
    (tmp_path / "in" / "labels.txt").write_text("ground\nthing")
    folder = read_masks(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "out", task="segment")
    again = read_masks(tmp_path / "out")
    assert again.labels == folder.labels
    np.testing.assert_array_equal(again.pixels, folder.pixels)
    for one, other in zip(folder.train, again.train, strict=True):
        np.testing.assert_array_equal(full_mask(other), full_mask(one))
    for one, other in zip(Masked(folder.val, 32), Masked(again.val, 32), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
