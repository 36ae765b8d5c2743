import json

import pytest
from pictures import save_picture

from ablation.real_folder import lay_out

SPLITS = {"labeled": ["b.png"], "unlabeled": ["a.png"], "val": ["c.png"], "test": ["d.png"]}
XML = (
    "<annotation><size><width>40</width><height>30</height></size><object><name>{}</name>"
    "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
    "</annotation>"
)


@pytest.fixture
def published(tmp_path):
    for number, name in enumerate("abcd"):
        save_picture(tmp_path / "published" / "IMAGES" / f"{name}.png", 40, 30)
        file = tmp_path / "published" / "ANNOTATIONS" / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(XML.format("rust" if number % 2 else "dent"))
    return tmp_path / "published"


def test_pictures_lie_where_the_splits_say(published, tmp_path):
    lay_out(SPLITS, published, tmp_path / "made")
    for file, name, category in (
        ("labeled", "b", 2),
        ("unlabeled_truth", "a", 1),
        ("val", "c", 1),
        ("test", "d", 2),
    ):
        content = json.loads((tmp_path / "made" / f"{file}.json").read_text())
        assert [c["name"] for c in content["categories"]] == ["dent", "rust"]
        (image,), (annotation,) = content["images"], content["annotations"]
        assert (image["file_name"], image["width"], image["height"]) == (f"{name}.png", 40, 30)
        assert annotation["bbox"] == [0, 2, 20, 28]  # VOC counts from 1, both ends included
        assert (annotation["category_id"], annotation["image_id"]) == (category, image["id"])
        picture = tmp_path / "made" / file.removesuffix("_truth") / image["file_name"]
        assert picture.samefile(published / "IMAGES" / f"{name}.png")


def test_what_is_not_there_is_named(published, tmp_path):
    (published / "ANNOTATIONS" / "c.xml").unlink()
    with pytest.raises(SystemExit, match=r"has no c\.xml \(and 0 more"):
        lay_out(SPLITS, published, tmp_path / "made")
    assert not (tmp_path / "made").exists()
