"""Tables that were once read wrongly without a word."""

from pathlib import Path

import pytest
from data_sets import image, text

from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.label_sets import read_label_sets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        image(tmp_path / f"{i}.jpg")
    return tmp_path


def table(folder: Path, head: str, cells: list[str]) -> Path:
    """Twelve rows of a file and, in turn, one of the cells."""
    rows = [f"{i}.jpg,{cells[i % len(cells)]}" for i in range(12)]
    return text(folder / "x.csv", "\n".join([head, *rows]))


@pytest.mark.parametrize(
    ("read", "head", "cells"),
    [
        (read_dataset, "file,label", ["cat", "cat, black"]),
        (read_label_sets, "file,labels", ["red", "red,round"]),
        (read_label_sets, "file,red,round", ["1,0", "1,1,1"]),
        (read_boxes, "file,label,xmin,ymin,xmax,ymax", ["a,1,1,9,9", "a,1,1,9,9,5"]),
    ],
)
def test_a_row_of_too_many_cells(read, head, cells, folder):
    """The cells beyond the last column were dropped: of red,round only red was left."""
    with pytest.raises(ValueError, match=r"line 3: the row has \d cells, the first line \d\. Put"):
        read(table(folder, head, cells))
    table(folder, head, [cells[0], f"{cells[0]},,"])  # empty ones say nothing
    assert read(folder / "x.csv").train if read is read_boxes else True


def test_a_quote_that_is_never_closed(folder):
    """It took the rest of the file into the name of a class."""
    with pytest.raises(ValueError, match="is not valid CSV after line"):
        read_dataset(table(folder, "file,label", ["a", "b", 'c"', '"d', "e"]))


@pytest.mark.parametrize(
    "cells",
    [
        ["\"['red', 'round']\"", "\"['round']\"", "[]", '"[""round"", ""red""]"'],
        ["['red' 'round']", "['round']", "[]", "['round' 'red']"],
        ['"[red, round]"', "[round]", "[]", '"[round,red]"'],
    ],
)
def test_lists_as_python_writes_them(cells, folder):
    """Brackets and quotes were parts of the labels: "['red'" was one."""
    found = read_label_sets(table(folder, "file,labels", cells))
    assert set(found.labels) == {"red", "round"}
    sets = {
        path.stem: target
        for split in (found.train, found.val)
        for path, target in zip(split.paths, split.targets.sum(axis=1).tolist(), strict=True)
    }
    assert [sets[str(i)] for i in range(4)] == [2, 1, 0, 2]


def test_labels_with_blanks_between_are_told(folder):
    """Planet's tags "clear primary" were one label each."""
    found = read_label_sets(
        table(folder, "image_name,tags", ["haze", "clear", "clear road", "haze road"])
    )
    assert "cells such as 'clear road' are read as one label" in found.issues[0].reason
    found = read_label_sets(table(folder, "file,labels", ["stop sign", "traffic light", "car"]))
    assert found.issues == ()


@pytest.mark.parametrize("task", ["classes", "sets", "boxes"])
def test_a_column_that_holds_splits_whatever_its_name(task, folder):
    """Of a column called phase nothing was read, and the test images were trained on."""
    head, label, read = {
        "classes": ("file,label", "{}", read_dataset),
        "sets": ("file,labels", "{};c", read_label_sets),
        "boxes": ("file,label,xmin,ymin,xmax,ymax", "{},1,1,20,20", read_boxes),
    }[task]
    cells = [f"{label.format(k)},{s}" for s in ("train", "Val", "test") for k in "ab"]
    found = read(table(folder, f"{head},phase", cells))
    assert [len(split) for split in (found.train, found.val, found.test)] == [4, 4, 4]
    assert "the column 'phase' is read as the split" in {i.reason for i in found.issues}


def test_columns_that_may_be_labels_or_splits_are_told(folder):
    found = read_dataset(table(folder, "file,label,is_test,", ["a,0,1", "b,0,2", "b,1,3"]))
    assert [i.reason for i in found.issues] == [
        "columns that are not used: is_test. For a split, say train, val or test in a column "
        "called split, not is_test"
    ]
    head = "file,label,xmin,ymin,xmax,ymax,is_train,score,species"
    found = read_boxes(table(folder, head, ["a,1,1,20,20,0,.5,x"]))
    assert [i.reason for i in found.issues] == [
        "columns that are not used: is_train, species. For a split, say train, val or test in a "
        "column called split, not is_train"
    ]


def test_columns_of_0_and_1_that_are_no_classes(folder):
    """is_valid was a class: its images were of two, and left out."""
    rows = ["1,0,0,1", "0,1,1,0", "1,0,1,0", "0,1,0,0"]
    found = read_dataset(table(folder, "file,cat,dog,is_valid,", rows))
    assert (found.labels, len(found.train) + len(found.val)) == (("cat", "dog"), 12)
    assert "not is_valid" in found.issues[0].reason
    with pytest.raises(ValueError, match="several columns called 'cat'"):
        read_dataset(table(folder, "file,cat,cat,dog", ["1,0,0", "0,1,0", "0,0,1", "1,0,0"]))


def test_classes_made_of_others_are_told(folder):
    """Of images of several labels each combination was a class."""
    found = read_dataset(table(folder, "file,label", ["cat", "dog", "cat;dog", "cat;dog"]))
    assert "'cat;dog' is read as one class. For several in an image" in str(found.issues)


def test_numbers_that_tables_make_of_each_other(folder):
    """Excel makes 1 of 01, pandas 1.0: they were three classes."""
    found = read_dataset(table(folder, "file,label,split", ["1,train", "2,train", "1.0,val"]))
    assert found.labels == ("1", "2")
    found = read_dataset(table(folder, "file,label", ["01", "1", "traffic_light", "traffic light"]))
    assert [issue.reason for issue in found.issues] == [
        "classes '01' and '1' are spelt alike: are they one?",
        "classes 'traffic light' and 'traffic_light' are spelt alike: are they one?",
    ]


def test_a_labelling_programs_own_table(folder):
    boxes = '"[{""x"": 1, ""rectanglelabels"": [""cat""]}]"'
    file = table(folder, "image,label", [boxes, boxes])
    with pytest.raises(ValueError, match=r"is an export of Label Studio .*: export"):
        read_dataset(file)
    with pytest.raises(ValueError, match=r"holds no images .*is an export of Label Studio"):
        read_dataset(folder)
    with pytest.raises(ValueError, match="is an export of Label Studio"):
        read_label_sets(file)


def test_the_column_of_label_studios_choices(folder):
    file = table(folder, "image,choice", ["cat", "dog", "cat", "dog"])
    assert read_dataset(file).labels == ("cat", "dog")
    several = '"{""choices"":[""cat"",""dog""]}"'
    file = table(folder, "image,choice", ["cat", several, "dog"])
    assert read_label_sets(file).labels == ("cat", "dog")
    with pytest.raises(ValueError, match="several take kzoo multilabel"):
        read_dataset(file)


@pytest.mark.parametrize(
    ("read", "head", "row"),
    [
        (read_dataset, "file,label", "{}"),
        (read_label_sets, "file,labels", "{}"),
        (read_boxes, "file,label,xmin,ymin,xmax,ymax", "{},1,1,20,20"),
    ],
)
def test_labels_that_say_that_there_is_none(read, head, row, folder):
    """As str() of pandas' missing values: nan was a class."""
    for word in ("nan", "NaN", "<NA>", "null"):
        cells = [row.format(label) for label in ("a", "b", word)]
        with pytest.raises(ValueError, match=rf"4 rows have the label '{word}' \(lines 4, 7, 10, "):
            read(table(folder, head, cells))
    found = read(table(folder, head, [row.format(label) for label in ("a", "b", "None")]))
    assert found.labels == ("None", "a", "b")  # may be a class
    assert "4 rows have the label 'None' (lines 4, 7, 10, ...). If" in found.issues[0].reason
