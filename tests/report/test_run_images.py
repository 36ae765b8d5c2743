"""Whose predictions are whose, where data sets count for themselves."""

import shutil
from pathlib import Path

from made_run import make_run
from pictures import coco_contents, write_coco
from samples import assert_same, detections

from d2_ssod.artifacts import RunFolder, prediction_source, record_training, save_predictions
from d2_ssod.data.datasets import register_from_config
from d2_ssod.json_files import read_json, write_json
from d2_ssod.report.collect import collect
from d2_ssod.report.images import RunImages


def test_predictions_stay_with_their_pictures_where_one_was_added(tmp_path):
    cfg = make_run(tmp_path)
    folder = RunFolder(cfg.OUTPUT_DIR)
    before = RunImages(collect(cfg))
    for phase in (0, 1):
        note = prediction_source(cfg, list(before.unlabeled.values()))
        write_json(folder.phase(phase).predictions_source, note)
    x_of = {before.unlabeled[i]["file_name"]: found for i, found in before.predictions[0].items()}
    pictures = Path(next(iter(x_of))).parent
    shutil.copy(next(iter(x_of)), pictures / "0.png")  # the first of all, by its name
    after = RunImages(collect(cfg))
    assert len(after.unlabeled) == len(x_of) + 1
    for found in after.predictions.values():
        assert len(found) == len(x_of)
    for image_id, found in after.predictions[0].items():
        assert_same(found, x_of[after.unlabeled[image_id]["file_name"]])
    assert after.run.problems == []
    Path(next(iter(x_of))).unlink()
    assert RunImages(collect(cfg)).predictions == {}


def test_crowds_that_a_person_has_marked_are_no_labels(tmp_path):
    cfg = make_run(tmp_path)
    path, before = RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels, RunImages(collect(cfg)).labels
    content = read_json(path)
    marked = content["annotations"][0]
    marked["iscrowd"] = 1
    write_json(path, content)
    after = RunImages(collect(cfg)).labels
    assert len(after[1].get(marked["image_id"], ())) == len(before[1][marked["image_id"]]) - 1


def test_labels_that_have_changed_are_not_compared(tmp_path):
    cfg = make_run(tmp_path)
    folder, before = RunFolder(cfg.OUTPUT_DIR), RunImages(collect(cfg))
    assert before.on_labeled
    record_training(cfg, 2, before.labeled[:-1], folder)
    after = RunImages(collect(cfg))
    assert after.on_labeled == {}
    assert "the labeled images or their objects have changed" in after.run.problems[-1]
    record_training(cfg, 2, before.labeled, folder)
    assert RunImages(collect(cfg)).on_labeled.keys() == before.on_labeled.keys()


def test_labeled_images_have_the_ids_that_they_were_predicted_by(tmp_path):
    cfg = make_run(tmp_path)
    entries = []
    for name in ("first", "second"):
        contents = coco_contents(2)
        if name == "first":  # nothing is on its first image, which is not trained on
            contents["annotations"] = contents["annotations"][1:]
        file = write_coco(tmp_path / name, contents)
        entries.append({"NAME": f"ids_{name}", "JSON": str(file), "IMAGES": str(file.parent)})
    register_from_config(entries, "SSOD.REGISTER")
    cfg.DATASETS.TRAIN = ("ids_first", "ids_second")
    found = {n: detections((n, 0, 10, 10, 0.9, 0)) for n in (1, 2, 3)}
    save_predictions(RunFolder(cfg.OUTPUT_DIR).phase(2).labeled_predictions, found, [1, 2])
    images = RunImages(collect(cfg))
    names = {
        int(of_image.boxes[0, 0]): "/".join(image["file_name"].rsplit("/", 2)[1:])
        for image, of_image in images.on_labeled.values()
    }
    assert names == {1: "first/2.png", 2: "second/1.png", 3: "second/2.png"}
    assert images.run.problems == []


def test_images_that_a_person_found_empty_are_shown_where_they_are_learned_from(tmp_path):
    cfg = make_run(tmp_path)
    path = RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels
    content = read_json(path)
    before = [image["id"] for image in content["images"]]
    empty = next(
        i for i in RunImages(collect(cfg)).unlabeled.values() if i["image_id"] not in before
    )
    size = {key: empty[key] for key in ("file_name", "width", "height")}
    content["images"].insert(0, {"id": empty["image_id"], **size, "corrected": True})
    write_json(path, content)
    assert list(RunImages(collect(cfg)).labels[1]) == before
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert list(RunImages(collect(cfg)).labels[1]) == [empty["image_id"], *before]


def test_images_that_one_phase_alone_has_seen_are_left_out(tmp_path):
    cfg = make_run(tmp_path)
    folder, before = RunFolder(cfg.OUTPUT_DIR), RunImages(collect(cfg))
    images, found = list(before.unlabeled.values()), before.predictions
    write_json(folder.phase(1).predictions_source, prediction_source(cfg, images))
    save_predictions(folder.phase(0).predictions, dict(list(found[0].items())[:-1]), [1, 2])
    write_json(folder.phase(0).predictions_source, prediction_source(cfg, images[:-1]))
    after = RunImages(collect(cfg)).predictions
    assert [list(of_phase) for of_phase in after.values()] == [list(found[0])[:-1]] * 2
