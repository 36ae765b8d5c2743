import json

import pytest
from pictures import coco_contents, cut, save_picture, write_coco
from runs import bare_config

from d2_ssod.artifacts import RunFolder, prediction_source, record_training, save_classes
from d2_ssod.commands import main
from d2_ssod.json_files import write_json

CONFIG = """
MODEL: {{ROI_HEADS: {{NUM_CLASSES: 2}}, WEIGHTS: ""}}
DATASETS: {{TRAIN: [{name}_labeled], UNLABELED: [{name}_unlabeled], TEST: [{name}_test]}}
SSOD:
  ROI_WEIGHTING: {{NAME: none}}
  REGISTER:
    - {{NAME: {name}_labeled, JSON: {root}/labeled/instances.json, IMAGES: {root}/labeled}}
    - {{NAME: {name}_unlabeled, IMAGES: {root}/unlabeled}}
    - {{NAME: {name}_test, JSON: {root}/test/instances.json, IMAGES: {root}/test}}
"""


@pytest.fixture
def config(tmp_path):
    """A config with two classes of ten objects each."""
    contents = coco_contents(20, boxes=[(1, 2, 10, 8)])
    for annotation in contents["annotations"][10:]:
        annotation["category_id"] = 2
    write_coco(tmp_path / "labeled", contents)
    judging = json.loads(json.dumps(contents))
    for image in judging["images"]:
        image["file_name"] = f"test_{image['file_name']}"
    write_coco(tmp_path / "test", judging)
    for name in "ab":
        save_picture(tmp_path / "unlabeled" / f"unlabeled_{name}.png")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(name=tmp_path.name, root=tmp_path))
    return path


def checked(config, capsys, *overrides):
    """Exit code, and what is printed."""
    with pytest.raises(SystemExit) as caught:
        main(["check", "--config-file", str(config), *overrides])
    captured = capsys.readouterr()
    return caught.value.code, captured.out + captured.err


def test_good_data_are_well(config, capsys):
    assert checked(config, capsys) == (0, "All is well.\n")


def test_keys_in_vain_are_said(config, capsys):
    keys = ("SSOD.ROI_WEIGHTING.NAME", "constant", "TEST.AUG.ENABLED", "True")
    code, text = checked(config, capsys, *keys)
    assert code == 0
    assert "keys that are hardly meant (2)" in text
    assert "TEST.AUG.ENABLED is True, but has no effect" in text
    assert "MODEL.ROI_HEADS.NAME 'Res5ROIHeads' weighs no RoIs" in text


def test_a_model_that_cannot_be_built_is_an_error(config, capsys):
    heads = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.NAME")
    code, text = checked(config, capsys, *heads, "FastRCNNConvFCHead")
    assert code == 1
    assert "models that cannot be built (1)" in text
    assert "CascadeROIHeads only support class-agnostic regression" in text
    code, text = checked(config, capsys, "MODEL.LOAD_PROPOSALS", "True")
    assert (code, "map with Detectron2's DatasetMapper" in text) == (1, True)


def test_anchors_may_be_one_list_for_all_levels(config, capsys):
    sizes = ("MODEL.ANCHOR_GENERATOR.SIZES", "[8, 16.5]")
    ratios = ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[0.5, 1]")
    assert checked(config, capsys, *sizes, *ratios) == (0, "All is well.\n")
    code, text = checked(config, capsys, "MODEL.ANCHOR_GENERATOR.SIZES", "[2048, 4096]")
    assert code == 0
    assert "objects smaller than the anchors" in text


def test_labeled_images_that_are_not_trained_on_are_said(config, capsys, tmp_path):
    path = tmp_path / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    contents["annotations"][3]["iscrowd"] = 1
    del contents["annotations"][4]
    path.write_text(json.dumps(contents))
    code, text = checked(config, capsys)
    assert code == 0
    assert "2 of 20 labeled images have no objects and are not trained on" in text
    of_all = ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False")
    assert "not trained on" not in checked(config, capsys, *of_all)[1]


def test_every_finding_is_printed(config, capsys, tmp_path):
    path = tmp_path / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    for annotation in contents["annotations"][:7]:
        annotation["category_id"] = 9
    contents["annotations"][7]["bbox"] = [1, 2, 0, 0]
    path.write_text(json.dumps(contents))
    cut(tmp_path / "unlabeled" / "unlabeled_a.png", 0.3)
    (tmp_path / "unlabeled" / "c.png").write_text("<html>")
    code, text = checked(config, capsys)
    assert code == 1
    assert "annotations of unknown categories (7)" in text
    assert "annotation 5 of image 5.png has category_id 9" in text
    assert "... and 2 more (--all)" in text
    code, all_of_it = checked(config, capsys, "--all")
    assert code == 1
    assert "annotation 7 of image 7.png has category_id 9" in all_of_it
    assert " more" not in all_of_it
    assert "  -> add the category, or correct the annotation" in text
    assert "warning: " + str(path) + ": boxes without area (1)" in text
    assert f"{tmp_path}/unlabeled/unlabeled_a.png is truncated or damaged" in text
    assert "c.png is not a readable image" in text
    assert text.index("error: ") < text.index("warning: ")
    assert "9 errors, 1 warnings" in text


def test_warnings_alone_are_no_error(config, capsys, tmp_path):
    (tmp_path / "unlabeled" / "copy.png").write_bytes((tmp_path / "labeled" / "1.png").read_bytes())
    code, text = checked(config, capsys)
    assert code == 0
    assert "0 errors, 1 warnings" in text
    assert f"{tmp_path}/unlabeled/copy.png is among the labeled images" in text


def test_a_config_that_cannot_be_used_is_one_line(config, capsys):
    code, text = checked(config, capsys, "SSOD.NUM_PHASES", "-1")
    assert code == 2
    assert text.startswith("error: SSOD.NUM_PHASES is -1")
    assert text.count("\n") == 1


def test_nothing_to_judge_by_is_said(config, capsys):
    code, text = checked(config, capsys, "DATASETS.TEST", "[]")
    assert code == 0
    assert "DATASETS.VAL and DATASETS.TEST name no labeled images" in text


@pytest.mark.parametrize("key", ["CORRECTED", "FROM"])
def test_labels_of_unlabeled_images_are_checked(config, capsys, tmp_path, key):
    labels = tmp_path / "labels.json"
    image = {"id": 1, "file_name": "nowhere.png"}
    labels.write_text(json.dumps({"images": [image], "categories": [], "annotations": []}))
    code, text = checked(config, capsys, f"SSOD.PSEUDO_LABEL.{key}", str(labels))
    assert code == 1
    assert f"{labels}: image 1 (file_name 'nowhere.png'): the unlabeled data set has no" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SSOD.CONSENSUS.EXTRA_SOURCES", "['{gone}']"),
        ("SSOD.START.PHASE_0", "{gone}"),
        ("SSOD.PSEUDO_LABEL.FROM", "{gone}"),
        ("SSOD.PSEUDO_LABEL.CORRECTED", "{gone}"),
    ],
)
def test_files_that_are_gone_are_said(config, capsys, tmp_path, key, value):
    gone = tmp_path / "gone"
    code, text = checked(config, capsys, key, value.format(gone=gone))
    assert code == 1
    assert f"{key} is {gone}, which is not a file" in text


def test_files_that_no_phase_reads_are_not_looked_at(config, capsys, tmp_path):
    keys = ("SSOD.NUM_PHASES", "0", "SSOD.PSEUDO_LABEL.FROM", str(tmp_path / "gone"))
    code, text = checked(config, capsys, *keys, "SSOD.CONSENSUS.EXTRA_SOURCES", "['gone']")
    assert code == 0
    assert "which is not a file" not in text


def test_pictures_that_are_others_than_were_predicted_on_are_said(config, capsys, tmp_path):
    cfg = bare_config(tmp_path / "run")
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    files.folder.mkdir(parents=True)
    files.predictions.touch()
    files.model.touch()
    gone = [{"file_name": str(tmp_path / "unlabeled" / "gone.png"), "image_id": 1}]
    write_json(files.predictions_source, prediction_source(cfg, gone))
    code, text = checked(config, capsys, "OUTPUT_DIR", cfg.OUTPUT_DIR)
    assert code == 0
    assert "warning: a run that --resume will refuse (1)" in text
    assert "predictions.json was made of 1 images that are not the" in text
    assert "without --resume, a new run begins" in text
    files.model.unlink()
    text = checked(config, capsys, "OUTPUT_DIR", cfg.OUTPUT_DIR)[1]
    assert "warning: a run that --resume will refuse (1)" in text
    assert f"{files.predictions}: made with {files.model}, which does not exist" in text


def test_a_run_of_other_classes_or_settings_is_said(config, capsys, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.phase(0).folder.mkdir(parents=True)
    folder.phase(0).model.touch()
    save_classes(folder, ["cat", "cow"])
    text = checked(config, capsys, "OUTPUT_DIR", str(folder.root))[1]
    assert "warning: a run that --resume will refuse (1)" in text
    assert "has other classes than the data sets" in text
    folder.classes.unlink()
    cfg = bare_config(folder.root)
    cfg.SOLVER.BASE_LR = 7.0
    record_training(cfg, 0, [], folder)
    text = checked(config, capsys, "OUTPUT_DIR", str(folder.root))[1]
    assert "warning: a run that --resume will refuse (1)" in text
    assert "SOLVER.BASE_LR was 7.0" in text


def test_what_is_damaged_of_a_run_is_no_error_of_the_config(config, capsys, tmp_path):
    folder, corrected = RunFolder(tmp_path / "run"), tmp_path / "corrected.json"
    image = {"id": 1, "file_name": "unlabeled_a.png"}
    own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 8]}
    categories = json.loads((tmp_path / "labeled" / "instances.json").read_text())["categories"]
    write_json(corrected, {"images": [image], "categories": categories, "annotations": [own]})
    folder.phase(0).folder.mkdir(parents=True)
    folder.phase(0).model.touch()
    write_json(folder.phase(1).pseudo_labels, {})
    folder.phase(1).manifest.write_text("damaged")
    keys = ("OUTPUT_DIR", str(folder.root), "SSOD.PSEUDO_LABEL.CORRECTED", str(corrected))
    code, text = checked(config, capsys, *keys, "SSOD.NUM_PHASES", "1")
    assert code == 0
    assert "warning: a run that --resume will refuse (1)" in text
    assert str(folder.phase(1).manifest) in text


def test_images_that_come_too_late_for_all_labels_are_said(config, capsys, tmp_path):
    cfg = bare_config(tmp_path / "run")
    folder = RunFolder(cfg.OUTPUT_DIR)
    write_json(folder.phase(0).predictions_source, prediction_source(cfg, []))
    write_json(folder.phase(1).pseudo_labels, {})
    text = checked(config, capsys, "OUTPUT_DIR", cfg.OUTPUT_DIR, "SSOD.NUM_PHASES", "1")[1]
    kind = "what comes too late for a run that --resume goes on with"
    assert f"warning: {kind} (1)\n    2 unlabeled images were added" in text


def test_labels_of_a_run_that_are_made_are_not_looked_at(config, capsys, tmp_path):
    labels = RunFolder(tmp_path / "run").phase(1).pseudo_labels
    labels.parent.mkdir(parents=True)
    labels.touch()
    keys = ("SSOD.PSEUDO_LABEL.FROM", str(tmp_path / "gone"), "OUTPUT_DIR", str(tmp_path / "run"))
    assert checked(config, capsys, *keys)[0] == 0


def test_weights_that_cannot_be_read_are_said(config, capsys, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"nonsense")
    code, text = checked(config, capsys, "SSOD.START.PHASE_0", str(weights))
    assert code == 1
    assert f"{weights}" in text


def test_a_model_of_another_run_is_checked(config, capsys, tmp_path):
    other = RunFolder(tmp_path / "other")
    cfg = bare_config(other.root)
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0]
    other.phase(0).folder.mkdir(parents=True)
    record_training(cfg, 0, [], other)
    other.phase(0).model.touch()
    key = ("SSOD.START.PHASE_0", str(other.phase(0).model))
    code, text = checked(config, capsys, *key)
    assert code == 1
    assert "is of another model than the config's: MODEL.PIXEL_MEAN was" in text


@pytest.mark.parametrize("filters", [False, True])
def test_labels_without_objects_are_refused_as_training_would(config, capsys, tmp_path, filters):
    labels = tmp_path / "labels.json"
    name = next((tmp_path / "unlabeled").iterdir()).name
    image = {"id": 1, "file_name": name, "corrected": True}
    labels.write_text(json.dumps({"images": [image], "categories": [], "annotations": []}))
    keys = ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", str(filters))
    code, text = checked(config, capsys, "SSOD.PSEUDO_LABEL.FROM", str(labels), *keys)
    assert code == 1
    assert f"SSOD.PSEUDO_LABEL.FROM: {labels} has no objects on unlabeled images" in text


def test_masks_that_count_as_crowds_are_said_of_corrected_labels(config, capsys, tmp_path):
    labels = tmp_path / "labels.json"
    name = next((tmp_path / "unlabeled").iterdir()).name
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1}
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [box]}
    content["categories"] = [{"id": 1, "name": "cat"}]
    labels.write_text(json.dumps(content))
    code, text = checked(config, capsys, "SSOD.PSEUDO_LABEL.CORRECTED", str(labels))
    assert code == 0
    assert f"SSOD.PSEUDO_LABEL.CORRECTED ({labels})" in text
    assert "1 of 1 annotations are crowds" in text
