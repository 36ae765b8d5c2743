"""Which pictures are shown of a run, in which order, and what is drawn on them."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from runs import bare_config
from samples import detections, scored

from d2_ssod.pseudo_label import TrueObjects
from d2_ssod.report.label_errors import Suspect
from d2_ssod.report.pictures import Mark, make_picture
from d2_ssod.report.review import Review
from d2_ssod.report.sheets import suspects_sheet, unlabeled_sheets
from d2_ssod.structures import Detections

CLASSES = ["cat", "dog"]


def image_of(number):
    return {"image_id": number, "file_name": f"{number}.png", "width": 64, "height": 48}


@pytest.fixture
def images(tmp_path):
    """What a run of two phases has, of 20 pictures that are gone."""
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 2
    return SimpleNamespace(
        run=SimpleNamespace(cfg=cfg),
        unlabeled={number: image_of(number) for number in range(1, 21)},
        labels={},
        predictions={},
        truth={},
    )


def sheets_of(images, queue=()):
    return {sheet.title: sheet for sheet in unlabeled_sheets(images, queue, CLASSES)}


def names(sheet):
    return [int(picture.name.removesuffix(".png")) for picture in sheet.pictures]


def captions(sheet):
    return [picture.caption.removesuffix(" (cannot be read)") for picture in sheet.pictures]


def kinds(picture):
    return [(mark.kind, mark.text) for mark in picture.marks]


def test_labels_of_the_last_phase_are_shown_easiest_and_hardest_first(images):
    order = [7, *range(14, 20), *range(1, 7), 20]
    images.labels = {1: {7: scored(0.9)}, 2: {number: scored(0.9, 0.5) for number in order}}
    images.labels[2][20] = Detections.empty()
    sheets = sheets_of(images)
    assert names(sheets["Easiest images"]) == order[:12]
    assert names(sheets["Hardest images with labels"]) == order[::-1][:12]
    assert names(sheets["Newly added images"]) == order[1:13]
    assert captions(sheets["Hardest images with labels"])[:2] == ["", "mean score 0.70"]
    first = sheets["Easiest images"].pictures[0]
    assert kinds(first) == [("kept", "cat 0.90"), ("kept", "cat 0.50")]
    assert "Of the 14 images that phase 2 is trained on" in sheets["Easiest images"].text
    assert "the first that phase 1 had not" in sheets["Newly added images"].text


@pytest.mark.parametrize("last", [1, 2])
def test_of_a_mean_teacher_it_is_said_whose_labels_these_are(images, last):
    """Only the last phase has one."""
    images.run.cfg.SSOD.TEACHER.ENABLED = True
    images.labels = {phase: {7: scored(0.9)} for phase in range(1, last + 1)}
    sheets = sheets_of(images)
    assert ("before its mean teacher" in sheets["Easiest images"].text) == (last == 2)
    assert "Newly added images" not in sheets


def review_of(number, uncertain, disagreement):
    return Review(image_of(number), uncertain, disagreement, scored(0.5))


def test_images_are_shown_where_the_last_two_models_disagree_most(images):
    images.predictions = {
        2: {n: scored(0.29, 0.3, number=1) for n in range(1, 21)},
        0: {n: scored(0.9) for n in range(1, 21)},
        1: {n: scored(0.8) for n in range(1, 21)},
    }
    images.labels = {1: {}, 2: {20: scored(0.7)}}
    queue = [review_of(n, 20 - n, max(n - 12, 0)) for n in range(1, 21)]
    sheets = sheets_of(images, queue)
    shown = sheets["Where the models disagree"]
    assert "phases 1 (blue, dashed) and 2 (orange, dashed)" in shown.text
    assert names(shown) == [20, 19, 18, 17, 16, 15, 14, 13]
    assert captions(shown)[0] == "disagreement 8.0"
    seen = [("older", "cat 0.80"), ("newer", "dog 0.30")]
    assert kinds(shown.pictures[0]) == [*seen, ("kept", "cat 0.70")]
    assert kinds(shown.pictures[1]) == seen
    assert names(sheets["Where it is uncertain what is there"]) == [1, 2, 3, 4, 5, 6]
    del images.predictions[0]
    assert names(sheets_of(images, queue)["Where the models disagree"]) == names(shown)
    del images.predictions[1]
    assert "Where the models disagree" not in sheets_of(images, queue)


def test_labels_are_shown_where_they_are_wrong_most(images):
    here, there, far = ((x, 0, x + 10, 10, 0.9, 0) for x in (0, 20, 40))
    none = Detections.empty()
    images.truth = {n: TrueObjects(detections(here, there), none) for n in range(1, 20)}
    images.labels = {
        2: {
            1: detections(here, there),
            2: detections(here),
            3: detections(far),
            4: detections(far, (40, 20, 50, 30, 0.8, 1), (2, 0, 12, 10, 0.7, 0)),
            20: detections(far),  # the truth of which is not known
        }
    }
    sheets = sheets_of(images)
    missed, wrong = sheets["Most missed objects"], sheets["Most wrong boxes"]
    assert list(zip(names(missed), captions(missed), strict=True)) == [
        (3, "2 missed"),
        (2, "1 missed"),
        (4, "1 missed"),
    ]
    assert list(zip(names(wrong), captions(wrong), strict=True)) == [
        (4, "2 wrong"),
        (3, "1 wrong"),
    ]
    assert kinds(wrong.pictures[0]) == [
        ("kept", "cat 0.70"),
        ("wrong", "cat 0.90"),
        ("wrong", "dog 0.80"),
        ("missed", "cat 0.90"),
    ]
    assert wrong.pictures[0].marks[-1].rectangle["x"] == 20
    images.labels = {}
    assert sheets_of(images) == {}


def test_suspects_are_drawn_by_their_kind():
    box = (1.0, 2.0, 11.0, 22.0)
    suspects = [
        Suspect(image_of(1), "no label", box, None, 1, 0.9),
        Suspect(image_of(2), "other class", box, 0, 1, 0.8),
        Suspect(image_of(3), "nothing seen", box, 0, None, 0.7),
    ]
    shown = suspects_sheet(suspects, CLASSES)
    assert [kinds(picture)[0] for picture in shown.pictures] == [
        ("newer", "dog 0.90, no label"),
        ("newer", "dog 0.80, labeled cat"),
        ("missed", "cat: nothing seen"),
    ]
    assert len(suspects_sheet(suspects * 5, CLASSES).pictures) == 12
    rectangle = {"x": 1.0, "y": 2.0, "width": 10.0, "height": 20.0}
    assert shown.pictures[0].marks[0].rectangle == rectangle


def test_a_picture_that_cannot_be_read_keeps_its_place_and_boxes():
    marks = [Mark((1, 2, 11, 22), "kept", "cat")]
    picture = make_picture(image_of(1), marks, "what")
    assert (picture.width, picture.height, picture.source) == (64, 48, "")
    assert (picture.marks, picture.caption) == (marks, "what (cannot be read)")


def thumbnail_of(picture):
    content = base64.b64decode(picture.source.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_least_certain_box_of_each_place_makes_it_bright(images, tmp_path):
    Image.new("RGB", (480, 240)).save(tmp_path / "black.png")
    image = {"file_name": str(tmp_path / "black.png")}
    whole = (-50, -50, 480, 240)
    found = detections((0, 120, 120, 240, 0.5, 0), (*whole, 0.95, 0), (240, 0, 480, 120, 0.8, 0))
    sheets = sheets_of(images, [Review(image, 1.0, 0.0, found)])
    (picture,) = sheets["Where it is uncertain what is there"].pictures
    assert (picture.width, picture.height) == (480, 240)
    shades = thumbnail_of(picture)
    assert shades.shape == (120, 240, 3)
    shades = shades.sum(axis=2)
    left_above, left_below = shades[10:50, 10:50].mean(), shades[70:110, 10:50].mean()
    right_above, right_below = shades[10:50, 130:230].mean(), shades[70:110, 130:230].mean()
    brightest = 0.55 * 255 * sum(colormaps["magma"](1.0)[:3])  # and the picture shows through
    assert left_below == pytest.approx(brightest, abs=10)
    assert left_below > right_above + 50 > left_above + 100 > 150
    assert left_above == pytest.approx(right_below, abs=3)
    assert thumbnail_of(make_picture(image)).max() < 10
