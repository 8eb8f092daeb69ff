"""Programs of an earlier version read data as before, and are told the new names."""

import numpy as np
import pytest
from PIL import Image

NAMES = {
    "from kzoo.recipes.annotations import read_boxes as found": "read_boxes",
    "from kzoo.recipes.masks import read_masks as found": "read_masks",
    "from kzoo.recipes.data import read_picture as found": "read_image",
    "from kzoo.recipes.data import BadPictureError as found": "BadImageError",
}


@pytest.mark.parametrize("line", NAMES)
def test_an_old_import_warns_and_finds_the_same_thing(line):
    from kzoo.recipes import data

    names: dict = {}
    with pytest.warns(DeprecationWarning, match=rf"is now called .*{NAMES[line]}"):
        exec(line, names)
    assert names["found"] is getattr(data, NAMES[line])


def test_an_unknown_name_in_an_old_place_is_an_import_error():
    with pytest.raises(ImportError, match="nonsense"):
        exec("from kzoo.recipes.masks import nonsense", {})
    with pytest.raises(AttributeError, match="nonsense"):
        exec("import kzoo.recipes.data as data; data.nonsense", {})


def test_old_attributes_of_a_mask_data_set(tmp_path):
    from kzoo.recipes.data import read_masks

    mask = np.zeros((48, 64), "uint8")
    mask[10:30] = 1
    for folder, pixels in (("images", np.stack([mask * 200] * 3, -1)), ("masks", mask)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.fromarray(np.roll(pixels, number, 0)).save(tmp_path / folder / f"{number}.png")
    data = read_masks(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"MaskDataset.defects is now called issues"):
        assert data.defects is data.issues
    with pytest.warns(DeprecationWarning, match=r"Pair.picture is now called image"):
        assert data.train[0].picture is data.train[0].image
