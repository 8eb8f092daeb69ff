"""Reading a person's images: every odd file has one clear outcome."""

import gc
import os
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import (
    BadImageError,
    Images,
    decode,
    decoded_once,
    forget_training_images,
    look_at,
    read_image,
    upright_size,
)
from kzoo.recipes.evaluation.drawings import read_upright


def write_image(path, colour=(200, 30, 30), size=(40, 30), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **save)
    return path


def two_classes(folder, count=5):
    for i in range(count):
        # No two images are the same.
        green, other = zlib.crc32(f"{folder}{i}".encode()).to_bytes(4)[:2]
        write_image(folder / "red" / f"{i}.jpg", (255, green, other))
        write_image(folder / "blue" / f"{i}.png", (green, other, 255))
    return folder


class TestReadImage:
    def test_is_square_rgb_bytes(self, tmp_path):
        read = read_image(write_image(tmp_path / "a.png"), 16)
        assert read.shape == (16, 16, 3)
        assert read.dtype == np.uint8
        assert (read == [200, 30, 30]).all()

    @pytest.mark.parametrize(
        ("mode", "value", "expected"),
        [
            ("L", 120, (120, 120, 120)),
            ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
            ("1", 1, (255, 255, 255)),
            ("LA", (120, 255), (120, 120, 120)),
            ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # nothing there: the white page behind it
            ("I;16", 0x8080, (0x80, 0x80, 0x80)),  # 16 bits become 8, they do not saturate
        ],
    )
    def test_reads_every_mode(self, tmp_path, mode, value, expected):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (16, 16), value).save(tmp_path / f"a.{suffix}")
        assert (read_image(tmp_path / f"a.{suffix}", 8) == expected).all()

    def test_reads_palettes_with_and_without_transparency(self, tmp_path):
        image = Image.new("P", (16, 16), 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        image.save(tmp_path / "opaque.png")
        image.save(tmp_path / "clear.png", transparency=1)
        assert (read_image(tmp_path / "opaque.png", 8) == [10, 200, 30]).all()
        assert (read_image(tmp_path / "clear.png", 8) == 255).all()

    def test_turns_a_photo_as_its_exif_says(self, tmp_path):
        image = Image.new("RGB", (20, 20), "black")
        image.paste("white", (0, 0, 20, 10))  # the upper half
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise: what was up is right
        image.save(tmp_path / "a.png", exif=exif)
        read = read_image(tmp_path / "a.png", 20)
        assert read[:, 12:].min() == 255
        assert read[:, :8].max() == 0

    @pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
    @pytest.mark.parametrize("turn", range(1, 9))
    def test_turns_every_format_once(self, tmp_path, suffix, turn):
        """As Pillow's own exif_transpose: TIFF it turns itself while it reads."""
        pixels = np.random.default_rng(turn).integers(0, 256, (24, 16, 3), "uint8")
        exif = Image.Exif()
        exif[0x0112] = turn
        file = tmp_path / f"a.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        Image.fromarray(pixels).save(file, exif=exif, **options)
        with Image.open(file) as image:
            seen = ImageOps.exif_transpose(image).convert("RGB")
        square, look = decode(file, 24)
        assert (square == np.asarray(seen.resize((24, 24), Image.Resampling.BILINEAR))).all()
        assert look.size == upright_size(file) == seen.size[::-1]
        assert look.orientation == turn
        assert (np.asarray(read_upright(file)) == np.asarray(seen)).all()

    def test_reads_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 255, 0))]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert (read_image(tmp_path / "a.gif", 8) == [255, 0, 0]).all()

    @pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff", "avif"])
    def test_says_how_many_frames_there_are(self, tmp_path, suffix):
        frames = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
        file = tmp_path / f"a.{suffix}"
        frames[0].save(file, save_all=True, append_images=frames[1:])
        assert look_at(file).remark == "holds 3 frames: the first is read"
        frames[0].save(file)
        assert look_at(file).remark is None

    def test_says_all_that_is_odd_about_it(self, tmp_path):
        pages = [Image.fromarray(np.full((16, 16), 1000, "uint16")) for _ in range(2)]
        pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
        assert look_at(tmp_path / "a.tiff").remark == (
            "holds values to 1000 in 16 bits or more: read as 10 bits; "
            "holds 2 frames: the first is read"
        )

    def test_smaller_pages_of_a_tiff_are_its_thumbnails(self, tmp_path):
        pages = [Image.new("RGB", (side, side)) for side in (64, 32, 16)]
        pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
        assert look_at(tmp_path / "a.tiff").remark is None

    def test_a_later_frame_that_is_cut_off_is_no_fault(self, tmp_path):
        frames = [Image.effect_noise((64, 64), 50 + i) for i in range(4)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        content = (tmp_path / "a.gif").read_bytes()
        (tmp_path / "a.gif").write_bytes(content[: len(content) // 2])
        assert look_at(tmp_path / "a.gif").fault is None

    def test_goes_by_content_not_by_suffix(self, tmp_path):
        write_image(tmp_path / "a.png").rename(tmp_path / "a.jpg")
        assert read_image(tmp_path / "a.jpg", 8).shape == (8, 8, 3)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "empty"),
            (b"no image at all", "not an image"),
            (b"\xff\xd8\xff\xe0", "not an image"),
        ],
    )
    def test_says_what_is_wrong_with_a_file(self, tmp_path, content, reason):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(BadImageError, match=reason):
            read_image(tmp_path / "a.jpg", 8)

    @pytest.mark.parametrize("suffix", ["jpg", "png", "gif"])
    def test_a_truncated_image_is_damaged(self, tmp_path, suffix):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype="uint8")
        Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadImageError, match="damaged"):
            read_image(tmp_path / f"half.{suffix}", 8)

    def test_refuses_a_speck_a_folder_and_what_is_missing(self, tmp_path):
        write_image(tmp_path / "speck.png", size=(1, 1))
        (tmp_path / "x.jpg").mkdir()
        for name, reason in (("speck.png", "1 x 1"), ("x.jpg", "folder"), ("none.jpg", "missing")):
            with pytest.raises(BadImageError, match=reason):
                read_image(tmp_path / name, 8)

    def test_refuses_a_decompression_bomb(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        write_image(tmp_path / "a.png", size=(40, 40))
        with pytest.raises(BadImageError, match="too many pixels"):
            read_image(tmp_path / "a.png", 8)


class TestReadDataset:
    def test_one_folder_per_class(self, tmp_path):
        dataset = read_dataset(two_classes(tmp_path), val_fraction=0.2)
        assert dataset.labels == ("blue", "red")
        assert (len(dataset.train), len(dataset.val)) == (8, 2)
        assert sorted(dataset.val.targets.tolist()) == [0, 1]  # the same share of each class
        for split in (dataset.train, dataset.val):
            for path, target in zip(split.paths, split.targets, strict=True):
                assert path.parent.name == dataset.labels[target]
        assert not set(dataset.train.paths) & set(dataset.val.paths)

    def test_the_split_follows_the_seed_alone(self, tmp_path):
        two_classes(tmp_path, 12)
        first, again, other = (read_dataset(tmp_path, seed=seed) for seed in (1, 1, 2))
        assert first.val.paths == again.val.paths
        assert first.val.paths != other.val.paths

    def test_train_and_val_folders(self, tmp_path):
        two_classes(tmp_path / "train")
        two_classes(tmp_path / "val", 2)
        dataset = read_dataset(tmp_path)
        assert (len(dataset.train), len(dataset.val)) == (10, 4)

    def test_their_names_in_capitals_and_a_third_one(self, tmp_path):
        for name, each in (("Train", 5), ("VALID", 2), ("test", 3)):
            two_classes(tmp_path / name, each)
        dataset = read_dataset(tmp_path)
        assert (len(dataset.train), len(dataset.val)) == (10, 4)
        assert dataset.issues == ()
        assert len(dataset.test) == 6
        assert not {*dataset.test.paths} & {*dataset.train.paths, *dataset.val.paths}
        two_classes(tmp_path / "spare")
        assert [(d.path.name, d.reason) for d in read_dataset(tmp_path).issues] == [
            ("spare", "is neither train/, val/ nor test/: left out")
        ]

    def test_from_train_alone_some_are_drawn(self, tmp_path):
        two_classes(tmp_path / "train", 10)
        first, again, other = (read_dataset(tmp_path, seed=seed) for seed in (1, 1, 2))
        assert (len(first.train), len(first.val)) == (16, 4)
        assert sorted(first.val.targets.tolist()) == [0, 0, 1, 1]
        assert first.val.paths == again.val.paths
        assert first.val.paths != other.val.paths
        assert len(read_dataset(tmp_path, val_fraction=0.5).val) == 10

    def test_nothing_left_to_validate_on_is_an_error(self, tmp_path):
        two_classes(tmp_path / "train")
        for kind in ("red", "blue"):
            (tmp_path / "val" / kind).mkdir(parents=True)
            (tmp_path / "val" / kind / "0.jpg").touch()
        with pytest.raises(ValueError, match=r"no image is left to validate on\. Give some as val"):
            read_dataset(tmp_path)

    def test_a_csv_with_and_without_split(self, tmp_path):
        two_classes(tmp_path)
        rows = [f"{c}/{i}.{s},{c}" for c, s in (("red", "jpg"), ("blue", "png")) for i in range(5)]
        table = tmp_path / "images.csv"
        table.write_text("\n".join(["file,label", *rows]))
        assert len(read_dataset(table).val) == 2
        split = [f"{row},{'val' if '/4' in row else 'train'}" for row in rows]
        table.write_text("\n".join(["file,label,split", *split]))
        assert {path.stem for path in read_dataset(table).val.paths} == {"4"}

    def test_bad_files_are_left_out_and_listed(self, tmp_path):
        two_classes(tmp_path)
        (tmp_path / "red" / "empty.jpg").touch()
        (tmp_path / "red" / "x.jpg").mkdir()
        (tmp_path / "red" / "notes.txt").write_text("no image, and does not claim to be one")
        (tmp_path / "green").mkdir()
        write_image(tmp_path / "stray.jpg")
        dataset = read_dataset(tmp_path)
        assert dataset.labels == ("blue", "red")
        assert len(dataset.train) + len(dataset.val) == 10
        listed = {issue.path.name: issue.reason for issue in dataset.issues}
        assert set(listed) == {"empty.jpg", "x.jpg", "green", "stray.jpg"}
        assert "class is left out" in listed["green"]

    def test_nothing_to_learn_from_is_an_error(self, tmp_path):
        with pytest.raises(ValueError, match="There is no"):
            read_dataset(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="holds no images"):
            read_dataset(tmp_path)
        write_image(tmp_path / "red" / "a.jpg")
        with pytest.raises(ValueError, match="only the class 'red'"):
            read_dataset(tmp_path)

    def test_a_class_with_nothing_to_train_on_is_an_error(self, tmp_path):
        two_classes(tmp_path / "train")
        write_image(tmp_path / "val" / "green" / "a.jpg")
        with pytest.raises(ValueError, match="'green' has validation images but no training"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("colour,size\nred,9", "must name the columns file,label"),
            ("file,label,split\na.jpg,red,rest", "line 2: split must be train, val or test"),
            ("file,label\na.jpg,", "line 2: a row needs a file and a label"),
            ("", "must name the columns"),
        ],
    )
    def test_a_broken_csv_says_where(self, tmp_path, content, complaint):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(ValueError, match=complaint):
            read_dataset(tmp_path / "a.csv")

    def test_a_csv_that_is_no_text(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"\x00\x01\x02\x00\xff" * 9)
        with pytest.raises(ValueError, match=r"a\.csv is not a text file"):
            read_dataset(tmp_path / "a.csv")


def test_a_class_whose_folder_is_no_utf_8(tmp_path):
    """Its label is text that plots, labels.txt and the file's metadata can hold."""
    for name in (b"caf\xe9", b"tea"):
        for i in range(4):
            write_image(tmp_path / os.fsdecode(name) / f"{i}.png", (i, 9, 9 * len(name)))
    assert read_dataset(tmp_path).labels == ("caf\\udce9", "tea")


def test_images_are_read_once_while_they_fit(tmp_path, monkeypatch):
    paths = [write_image(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(3)]
    monkeypatch.setattr("kzoo.recipes.data.images.CACHE_BYTES", 2 * 8 * 8 * 3)
    images = Images(paths, 8)
    assert images[:].shape == (3, 8, 8, 3)
    assert [path for path, _ in images.decoded.images] == paths[:2]
    assert [int(images[i][0, 0, 0]) for i in range(3)] == [0, 1, 2]


def test_in_a_run_an_image_is_decoded_once_for_all_that_read_it(tmp_path, monkeypatch):
    paths = [write_image(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(2)]
    decoded = []
    monkeypatch.setattr(
        "kzoo.recipes.data.images.read_image",
        lambda path, side: decoded.append(side) or read_image(path, side),
    )
    with decoded_once():
        for _ in range(3):
            assert Images(paths, 8)[:].shape == (2, 8, 8, 3)
        Images(paths, 16, keep=False)[0]
        Images(paths, 16)[0]
    assert decoded == [8, 8, 16, 16]
    Images(paths, 8)[0]  # a file may have changed since
    assert decoded[4:] == [8]


def test_images_of_a_size_that_nobody_reads_any_more_make_room(tmp_path, monkeypatch):
    """As of a stage that has ended, where the next one trains at another size."""
    paths = [write_image(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(2)]
    monkeypatch.setattr("kzoo.recipes.data.images.CACHE_BYTES", 3 * 9 * 9 * 3)
    with decoded_once():
        val, train = Images(paths[:1], 9), Images(paths, 8)
        assert (len(val[:]), len(train[:])) == (1, 2)
        kept = val.decoded
        larger = Images(paths, 9)
        assert len(larger[:]) == 2
        assert {side for _, side in kept.images} == {8, 9}  # it is read on: nothing makes room
        assert (paths[1], 9) not in kept.images
        del train
        gc.collect()
        assert len(larger[:]) == 2
        assert [*kept.images] == [(paths[0], 9), (paths[1], 9)]
        assert kept.bytes == 2 * 9 * 9 * 3


def test_training_images_are_freed_although_they_are_still_referred_to(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(2)]
    with decoded_once():
        val, train = Images(paths[:1], 9), Images(paths, 8)
        assert (len(val[:]), len(train[:])) == (1, 2)
        forget_training_images(9)
        assert [*val.decoded.images] == [(paths[0], 9)]
        assert val.decoded.bytes == 9 * 9 * 3
        assert int(train[1][0, 0, 0]) == 1  # read anew
