"""Data files that are damaged or odd: each is read, or every fault in it is found and said."""

import copy
import json
import os

import pytest
from fuzz import damages, text_damages
from hypothesis import given, settings
from pictures import coco_contents, save_picture, write_coco

from d2_ssod.data.datasets import CocoFile, VocFolder, YoloSplit
from d2_ssod.errors import ConfigError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 30))
some = settings(max_examples=EXAMPLES, deadline=None, database=None)

VOC = """<annotation><filename>a.jpg</filename>
<size><width>24</width><height>16</height><depth>3</depth></size>
<object><name>cat</name><pose>left</pose><truncated>0</truncated><difficult>1</difficult>
<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>10</xmax><ymax>9</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>24</xmax><ymax>16</ymax></bndbox>
</object></annotation>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set in each layout."""
    root = tmp_path_factory.mktemp("layouts")
    contents = coco_contents(boxes=((1, 2, 10, 8), (3, 3, 4, 4)))
    contents["annotations"][0] |= {"segmentation": [[1, 1, 5, 1, 5, 5]], "keypoints": [1, 1, 2]}
    write_coco(root / "coco", contents)
    save_picture(root / "voc" / "JPEGImages" / "a.jpg")
    write(root / "voc" / "Annotations" / "a.xml", VOC)
    write(root / "voc" / "ImageSets" / "Main" / "train.txt", "a\n")
    save_picture(root / "yolo" / "images" / "train" / "a.png")
    write(root / "yolo" / "labels" / "train" / "a.txt", "1 0.5 0.5 0.5 0.2\n0 0 0 0.5 0.1 0.2 1\n")
    write(root / "yolo" / "data.yaml", "path: .\ntrain: images/train\nnames: {0: cat, 1: dog}\n")
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def check(files):
    """Read a data set; what is found in it must be said in lines, of a length one can read."""
    try:
        found = files.read()
        lines = [str(finding) for finding in found.findings]
        assert found.findings.has_errors or isinstance(found.images, list)
    except ConfigError as error:
        lines = [str(error)]
    for line in lines:
        assert "\n" not in line
        assert len(line) < 2000


def damaged(path, text):
    """Check with the file changed, and change it back."""
    whole = path.read_bytes()

    class Changed:
        def __enter__(self):
            write(path, text)

        def __exit__(self, *args):
            path.write_bytes(whole)

    return Changed()


def coco(folder):
    path = folder / "coco" / "instances.json"
    return path, CocoFile(str(path), str(path.parent))


@some
@given(damage=damages())
def test_values_of_a_coco_file(folder, damage):
    path, files = coco(folder)
    content = damage(copy.deepcopy(json.loads(path.read_text())))
    with damaged(path, json.dumps(content)):
        check(files)


@some
@given(damage=text_damages())
def test_the_text_of_a_coco_file(folder, damage):
    path, files = coco(folder)
    with damaged(path, damage(path.read_text())):
        check(files)


def test_a_voc_list_may_name_nothing(folder):
    with damaged(folder / "voc" / "ImageSets" / "Main" / "train.txt", ".\n./\na\n"):
        check(VocFolder(str(folder / "voc"), "train"))


@pytest.mark.parametrize("name", ["Annotations/a.xml", "ImageSets/Main/train.txt"])
@some
@given(damage=text_damages())
def test_files_of_a_voc_folder(folder, name, damage):
    path = folder / "voc" / name
    with damaged(path, damage(path.read_text())):
        check(VocFolder(str(folder / "voc"), "train", class_names=("cat", "dog")))
        check(VocFolder(str(folder / "voc"), "train"))


@pytest.mark.parametrize("name", ["labels/train/a.txt", "data.yaml"])
@some
@given(damage=text_damages())
def test_files_of_a_yolo_data_set(folder, name, damage):
    path = folder / "yolo" / name
    with damaged(path, damage(path.read_text())):
        check(YoloSplit(str(folder / "yolo" / "data.yaml"), "train"))
