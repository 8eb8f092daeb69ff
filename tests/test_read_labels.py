"""Labels that annotations leave out: str() of null was a class None."""

from pathlib import Path

import pytest
from data_sets import as_coco, as_createml, as_labelme

from kzoo.recipes.data.box_dataset import read_boxes


def without_label(file: Path, word: str) -> None:
    """Write `word` in place of the first dog."""
    file.write_text(file.read_text().replace('"dog"', word, 1))


@pytest.mark.parametrize("word", ["null", '""', "NaN"])
@pytest.mark.parametrize(
    ("write", "file"),
    [(as_labelme, "train/a.json"), (as_createml, "train/_annotations.createml.json")],
)
def test_objects_without_a_label_are_told(write, file, word, tmp_path):
    without_label(write(tmp_path) / file, word)
    found = read_boxes(tmp_path)
    assert found.labels == ("cat", "dog")
    assert [issue for issue in found.issues if f"a label is missing: it says {word}" in str(issue)]
    assert {example.path.stem for example in found.train} == {"b", "c"}  # the whole image


@pytest.mark.parametrize("word", ["null", '""'])
def test_a_category_without_a_name_is_refused(word, tmp_path):
    for file in (as_coco(tmp_path) / "annotations").iterdir():
        without_label(file, word)
    with pytest.raises(ValueError, match=rf"a label is missing: it says {word}\. It needs"):
        read_boxes(tmp_path)
