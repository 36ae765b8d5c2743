"""Which images are worth a look, and that what a person made of them comes back."""

import csv
import json
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import bare_config
from samples import detections

from d2_ssod.artifacts import RunFolder, load_labels
from d2_ssod.engine import default_argument_parser
from d2_ssod.engine.configs.checks import check_config
from d2_ssod.pseudo_label import Tiers
from d2_ssod.report.review import go_on_with, rank_images, write_queue

CLASSES, IDS = ["cat", "dog"], [3, 7]
IMAGES = {
    n: {"image_id": n, "file_name": f"/data/pictures/set_{n}/a.jpg", "width": 100, "height": 80}
    for n in range(1, 5)
}
BOX = (10, 10, 50, 50)


def rank(*sources):
    return rank_images(IMAGES, sources, np.array([1.0, 0.5]), Tiers())


def test_images_are_sorted_by_doubt_and_disagreement():
    first = {1: [(*BOX, 0.99, 0)], 2: [(*BOX, 0.9, 0)], 3: [(*BOX, 0.5, 0)], 4: []}
    second = {1: [(*BOX, 0.99, 0)], 2: [], 3: [(*BOX, 0.5, 0)], 4: []}
    queue = rank(*({n: detections(*rows) for n, rows in s.items()} for s in (first, second)))
    assert [review.image["image_id"] for review in queue][-2:] == [1, 4]
    by_id = {review.image["image_id"]: review for review in queue}
    assert by_id[4].worth == 0
    # q = sigmoid(logit(f) + beta), f = .99, .45 and .5 (of one of two models and of both).
    q = {n: float(by_id[n].found.scores[0]) for n in (1, 2, 3)}
    odds = {n: q[n] / (1 - q[n]) for n in q}
    assert odds[3] / odds[2] == pytest.approx((0.5 / 0.5) / (0.45 / 0.55), rel=1e-3)
    assert by_id[3].uncertain == pytest.approx(q[3] * (1 - q[3]))
    assert by_id[2].disagreement == pytest.approx(q[2] / 2)
    assert by_id[1].disagreement == by_id[3].disagreement == 0
    # Counts: an object per image is expected, or nine tenths of the boxes.
    assert sum(q.values()) == pytest.approx(0.9 * 3, abs=1e-3)


def test_one_model_cannot_disagree():
    queue = rank({n: detections((*BOX, 0.4, 0)) for n in IMAGES})
    assert all(review.disagreement == 0 and review.uncertain > 0 for review in queue)


def write(tmp_path, images_to_label=3):
    rows = {1: [(*BOX, 0.9, 0)], 2: [(*BOX, 0.9, 1)], 3: [(*BOX, 0.6, 0)], 4: []}
    queue = rank({n: detections(*found) for n, found in rows.items()})
    folder = RunFolder(tmp_path)
    write_queue(folder, queue, list(IMAGES.values()), CLASSES, IDS, images_to_label)
    return queue, folder.review


def test_the_table_has_all_images_and_the_coco_file_the_first(tmp_path):
    queue, folder = write(tmp_path)
    with open(folder / "queue.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [r.image["file_name"] for r in queue]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["worth"]) == pytest.approx(queue[0].worth, abs=1e-3)
    content = json.loads((folder / "queue.json").read_text())
    assert [image["id"] for image in content["images"]] == [r.image["image_id"] for r in queue[:3]]
    assert [c["id"] for c in content["categories"]] == IDS
    names = {image["file_name"] for image in content["images"]}
    assert names == {f"set_{r.image['image_id']}/a.jpg" for r in queue[:3]}


@pytest.mark.parametrize("rest", [1, 0])
def test_names_of_images_stay_as_others_are_corrected(tmp_path, rest):
    queue, folder = write(tmp_path)
    before = {
        i["id"]: i["file_name"] for i in json.loads((folder / "queue.json").read_text())["images"]
    }
    write_queue(RunFolder(tmp_path), queue[:rest], list(IMAGES.values()), CLASSES, IDS, 3)
    after = json.loads((folder / "queue.json").read_text())["images"]
    assert [i["file_name"] for i in after] == [before[r.image["image_id"]] for r in queue[:rest]]


@pytest.mark.parametrize("how", ["drawn", "looked at", "moved", "named in the config", "not"])
@pytest.mark.parametrize("is_sealed", [True, False])  # which earlier versions did not do
def test_a_queue_that_a_person_has_corrected_stays(tmp_path, caplog, how, is_sealed):
    queue, folder = write(tmp_path)
    file = folder / "queue.json"
    content = json.loads(file.read_text())
    if how == "drawn":
        del content["annotations"][0]["score"]
    elif how == "looked at":
        content["images"][0]["corrected"] = True
    elif how == "moved":
        content["annotations"][0]["bbox"] = [1, 2, 3, 4]
    if how in ("drawn", "looked at", "moved"):
        file.write_text(json.dumps(content))
    if not is_sealed:
        (folder / "queue.json.sha256").unlink()
    corrected = str(file) if how == "named in the config" else ""
    images = list(IMAGES.values())
    write_queue(RunFolder(tmp_path), queue[:1], images, CLASSES, IDS, 3, corrected)
    stays = how != "not" and (is_sealed or how != "moved")
    assert (json.loads(file.read_text()) == content) == stays
    assert ("queue.json stays as it is" in caplog.text) == stays


def test_a_name_that_is_no_text_is_written(tmp_path):
    odd = {n: {**image, "file_name": f"/data/\udcff{n}.jpg"} for n, image in IMAGES.items()}
    queue = rank_images(odd, [{n: detections() for n in odd}], np.array([1.0, 0.5]), Tiers())
    write_queue(RunFolder(tmp_path), queue, list(odd.values()), CLASSES, IDS, 2)
    assert "/data/\ufffd1.jpg" in (tmp_path / "review" / "queue.csv").read_text("utf-8-sig")


@settings(deadline=None)  # of 200 ms, which a busy machine may exceed
@given(
    offset=st.integers(0, 1000),
    swapped=st.booleans(),
    name=st.sampled_from(["as_is", "absolute", "windows", "label_studio"]),
    scores=st.booleans(),
)
def test_what_labeling_tools_export_comes_back(tmp_path_factory, offset, swapped, name, scores):
    """CVAT renumbers images and categories, Label Studio renames files, none keeps scores."""
    queue, folder = write(tmp_path_factory.mktemp("review"))
    content = json.loads((folder / "queue.json").read_text())
    export = as_exported(content, offset, swapped, name, scores)
    (folder / "export.json").write_text(json.dumps(export))
    back = load_labels(folder / "export.json", list(IMAGES.values()), CLASSES)
    expected = {r.image["image_id"]: r.proposed.classes.tolist() for r in queue[:3]}
    found = {i["image_id"]: [a["category_id"] for a in i["annotations"]] for i in back}
    assert found == expected
    if not scores:
        assert all(a["score"] == 1 for image in back for a in image["annotations"])


def as_exported(content, offset, swapped, name, scores):
    categories = content["categories"][::-1] if swapped else content["categories"]
    number = {c["id"]: n for n, c in enumerate(categories, start=1)}
    rename = {
        "as_is": lambda path: path,
        "absolute": lambda path: f"/data/pictures/{path}",
        "windows": lambda path: path.replace("/", "\\"),
        "label_studio": lambda path: "/".join(
            [*path.split("/")[:-1], "90fbb0c7-" + path.split("/")[-1]]
        ),
    }[name]
    kept = {"bbox", "area", "iscrowd"} | ({"score"} if scores else set())
    return {
        "images": [
            {**image, "id": image["id"] + offset, "file_name": rename(image["file_name"])}
            for image in content["images"]
        ],
        "categories": [{"id": number[c["id"]], "name": c["name"]} for c in categories],
        "annotations": [
            {
                **{key: value for key, value in a.items() if key in kept},
                "id": n,
                "image_id": a["image_id"] + offset,
                "category_id": number[a["category_id"]],
            }
            for n, a in enumerate(content["annotations"], start=1)
        ],
    }


IN_ITERATIONS = {"MAX_ITER": [30, 50], "STEPS": [(10, 20), ()], "BASE_LR": [0.02, 0.01]}
IN_EPOCHS = {"EPOCHS": [48, 17.5], "STEP_EPOCHS": [36.0, (12.8, 15)], "LABELED_REPEAT": [1, 4]}


@pytest.mark.parametrize("schedule", [{}, IN_ITERATIONS, IN_EPOCHS])
@pytest.mark.parametrize("num_phases", [0, 1])
def test_a_run_goes_on_with_a_phase_more(tmp_path, schedule, num_phases):
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = num_phases
    for key, values in schedule.items():
        cfg.SSOD.SCHEDULE[key] = values[: num_phases + 1]
    cfg.SSOD.EASY_FRACTIONS = (0.5,) if schedule else ()
    cfg.SSOD.ENSEMBLE.WEIGHTS = (1.0, 2.0)[: num_phases + 1] if schedule else ()
    before = cfg.clone()
    check_config(cfg, 1)
    leave_labels(cfg, num_phases)
    arguments = default_argument_parser().parse_args(shlex.split(go_on_with(cfg, "my file.json")))
    assert cfg == before
    cfg.merge_from_list(arguments.opts)
    check_config(cfg, 1)
    assert arguments.resume
    assert cfg.SSOD.PSEUDO_LABEL.CORRECTED == "my file.json"
    assert num_phases + 1 == cfg.SSOD.NUM_PHASES
    for key, values in before.SSOD.SCHEDULE.items():
        own = cfg.SSOD.SCHEDULE[key]
        assert list(own) == ([*values, values[-1]] if values else [])
    if schedule:
        assert set(cfg.SSOD.EASY_FRACTIONS) == {0.5}


def leave_labels(cfg, phase):
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_phases_that_are_still_to_be_labeled_need_no_further_one(tmp_path):
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 2
    leave_labels(cfg, 1)
    assert go_on_with(cfg, "a.json") == "--resume SSOD.PSEUDO_LABEL.CORRECTED a.json"


def test_settings_that_are_alike_in_all_phases_are_left_out(tmp_path):
    leave_labels(bare_config(tmp_path), 2)
    text = go_on_with(bare_config(tmp_path), "file.json")
    assert text == "--resume SSOD.PSEUDO_LABEL.CORRECTED file.json SSOD.NUM_PHASES 3"


def test_disagreement_counts_as_much_as_doubt():
    """Image 1 has a box of one model, image 2 one of the same doubt that both see."""
    both = {1: [(*BOX, 0.5, 0)], 2: [(*BOX, 0.45, 0)], 3: [], 4: []}
    one = {1: [], 2: [(*BOX, 0.45, 0)], 3: [], 4: []}
    queue = rank(*({n: detections(*rows) for n, rows in s.items()} for s in (both, one)))
    assert queue[0].image["image_id"] == 1
    for review in queue:
        assert review.worth == pytest.approx(review.uncertain + review.disagreement)


def test_boxes_that_are_hardly_objects_are_not_put_before_a_person():
    rows = {n: [(*BOX, 0.9, 0), (60, 10, 90, 50, 0.1, 0)] for n in IMAGES}
    for review in rank({n: detections(*found) for n, found in rows.items()}):
        assert len(review.found) == 2
        assert review.proposed.scores.min() >= 0.3
        assert len(review.proposed) == 1


def test_a_run_of_labels_alone_goes_on_with_a_phase(tmp_path):
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES = 0
    words = shlex.split(go_on_with(cfg, "mine.json"))
    assert words[words.index("SSOD.NUM_PHASES") + 1] == "1"
