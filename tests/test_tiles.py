"""Photos in tiles: which pixels each sees, and one box for each object, wherever a seam runs."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from test_ssdlite import small, taught

from kzoo.detection.boxes import iou
from kzoo.detection.detections import Detections
from kzoo.detection.detector import at_own_size
from kzoo.detection.tiles import tiles_of, total_score
from kzoo.recipes.cli import main
from kzoo.sizes import Tiles

SIZE = 64  # px that the detector below sees


def bright_squares(images: np.ndarray) -> list[Detections]:
    """A detector of what is brighter than 128, one box around all of it for each colour channel.

    As a real one would, it says nothing of what is under 4 px a side at its input.
    """
    found = []
    for image in images:
        boxes, labels = [], []
        for channel in range(3):
            rows, columns = np.nonzero(image[..., channel] > 128)
            if len(rows) and np.ptp(rows) >= 3 and np.ptp(columns) >= 3:
                low, high = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
                boxes.append(np.r_[low, high] / SIZE)
                labels.append(channel)
        count = len(labels)
        found.append(
            Detections(np.reshape(boxes, (count, 4)), np.array(labels, int), np.ones(count))
        )
    return found


def photo(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """(400, 600, 3) with a square (y, x, side, channel) of each."""
    image = np.zeros((400, 600, 3), "uint8")
    for y, x, side, channel in squares:
        image[y : y + side, x : x + side, channel] = 255
    return image


def found(image: np.ndarray, tiles: Tiles | None) -> dict[int, list[float]]:
    (one,) = at_own_size(bright_squares, [image], (SIZE, SIZE), tiles, {})
    assert len(set(one.labels.tolist())) == len(one)  # no object twice
    return {label: box.tolist() for box, label, _ in one}


def test_tiles_cover_the_photo_and_overlap_by_a_fifth():
    """By hand: 2 tiles of 400 px with a fifth of overlap are 222 px, the second from 178 on."""
    tiles = tiles_of((400, 600), (2, 1))
    assert [tile.window for tile in tiles] == [(0, 0, 222, 600), (178, 0, 400, 600)]
    assert tiles[0].core[2] == tiles[1].core[0] == pytest.approx(200)
    assert [tile.window for tile in tiles_of((400, 600), (1, 1))] == [(0, 0, 400, 600)]


@pytest.mark.parametrize("corner", [(30, 40), (190, 290), (170, 310), (5, 560)])
def test_a_small_object_is_found_in_tiles_only(corner):
    """Of 16 x 16 px, 2.6 x 1.7 at the input; in tiles 4.6 x 3, or in more of them 6.2 x 4.2."""
    image = photo((*corner, 16, 0))
    assert found(image, None) == {}
    (box,) = found(image, (3, 3)).values()
    np.testing.assert_allclose(box, [*corner, corner[0] + 16, corner[1] + 16], atol=4)


@pytest.mark.parametrize("tiles", [(2, 2), (3, 3), (1, 2)])
def test_a_large_object_is_found_once(tiles):
    """One that no tile holds: the look at the whole photo finds it, and no part of it counts."""
    (box,) = found(photo((100, 150, 250, 1)), tiles).values()
    np.testing.assert_allclose(box, [100, 150, 350, 400], atol=10)


def test_objects_of_all_sizes_at_once():
    boxes = found(photo((100, 150, 250, 1), (20, 500, 16, 0), (195, 20, 20, 2)), (3, 3))
    assert sorted(boxes) == [0, 1, 2]
    np.testing.assert_allclose(boxes[2], [195, 20, 215, 40], atol=4)


@pytest.mark.parametrize(
    ("squares", "taken"),
    [
        # The model sees 64 of 400 x 600 px, its smallest object 4 px: 25 px high and 38 px wide in
        # the whole image, 14 x 21 in 2 x 2 tiles, 10 x 14 in 3 x 3, 7.4 x 11 in 4 x 4.
        ([(100, 150, 250, 1), (20, 400, 100, 0)], None),
        ([(40, 40, 30, 0), (40, 500, 30, 1)], (2, 2)),
        ([(40, 40, 30, 0), (40, 500, 30, 1), (330, 40, 17, 2)], (3, 3)),
        ([], None),
    ],
)
def test_auto_takes_as_many_tiles_as_find_more(squares, taken):
    """The detector's scores are 1, so that the sums are counts of objects."""
    image = photo(*squares)
    assert found(image, "auto") == found(image, taken)
    assert taken is None or found(image, "auto") != found(image, None)


def test_auto_does_not_count_parts_of_what_the_whole_image_shows():
    """The first box is a ninth of the known one, the second .8 of it, the third half outside."""
    boxes = np.array([[0, 0, 33, 33], [0, 0, 80, 100], [20, 80, 60, 120]], float)
    tiles = Detections(boxes, np.array([0, 0, 0]), np.array([0.9, 0.8, 0.5]))
    known = np.array([[0, 0, 100, 100]], float)
    assert total_score(tiles, known[:0]) == pytest.approx(2.2)
    assert total_score(tiles, known) == pytest.approx(0.8 + 0.5)


def test_auto_leaves_images_no_larger_than_the_input_alone():
    image = photo((40, 40, 30, 0), (40, 500, 30, 1))[::6, ::6]  # 67 x 100 px for 64 x 64
    assert found(image, "auto") == found(image, None) != found(image, (2, 2))


@pytest.mark.parametrize("tiles", [2, (2,), (0, 2), (2, 1.5), "2x2"])
def test_tiles_that_make_no_sense(tiles):
    with pytest.raises(ValueError, match=r"tiles must be \(rows, columns\).*Received: tiles="):
        small().detect([photo()], tiles=tiles)


def test_predict_and_evaluate_look_at_tiles(tmp_path, capsys):
    """A scene that a detector has learnt, five times as large, is one tile of a photo."""
    keras.utils.set_random_seed(0)
    model = small()
    images, truth = taught(model)
    model.save(tmp_path / "model.keras")
    photo = np.full((288, 288, 3), 110, "uint8")  # a tile of 2 x 2 is 160 px
    photo[:160, :160] = images[1].repeat(5, axis=0).repeat(5, axis=1)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = ["predict", str(tmp_path / "model.keras"), str(tmp_path / "photo.png"), "--json"]
    best = []
    for tiles in ([], ["--tiles", "2x2"]):
        assert main([*words, *tiles]) == 0
        (one,) = json.loads(capsys.readouterr().out)["predictions"]
        boxes = np.array([each["box"] for each in one["found"]] or [[0.0] * 4])
        best.append(iou(boxes, truth["boxes"][1, :1] * 160).max())
    assert best[1] > max(0.5, best[0])
    y0, x0, y1, x1 = (float(v) for v in truth["boxes"][1, 0] * 160)
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    annotations = {
        "images": [{"id": 1, "file_name": "photo.png", "width": 288, "height": 288}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [box],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    (tmp_path / "labels.txt").write_text("thing\nother\nthird\n"[: 6 * model.classes])
    words = ["evaluate", str(tmp_path / "model.keras"), str(tmp_path), "--json", "--tiles", "2x2"]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["model.keras in 2x2 tiles"]["map50"] > figures["model.keras"]["map50"]


@pytest.mark.parametrize(
    "words", [["evaluate", "m.keras", "data"], ["compare", "a"], ["android", "a"]]
)
def test_tiles_that_are_no_pair(words, capsys):
    assert main([*words, "--tiles", "0x2"]) == 1
    told = capsys.readouterr().err
    assert "--tiles must be auto or ROWSxCOLUMNS, such as 2x2. Received: '0x2'" in told


def test_tiles_are_for_one_run(capsys):
    assert main(["compare", "a", "b", "--tiles", "2x2"]) == 1
    assert "--tiles is for one run" in capsys.readouterr().err


def test_tiles_that_predict_cannot_use(tmp_path, capsys):
    assert main(["predict", "model.keras", "1.jpg", "--tiles", "2"]) == 1
    told = capsys.readouterr().err
    assert "--tiles must be auto or ROWSxCOLUMNS, such as 2x2. Received: '2'" in told
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(3)(pooled)).save(tmp_path / "model.keras")
    file = str(tmp_path / "model.keras")
    assert main(["predict", file, "1.jpg", "--tiles", "2x2"]) == 1
    assert "Tiles are for detectors." in capsys.readouterr().err
