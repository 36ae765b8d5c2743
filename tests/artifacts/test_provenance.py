import os
from pathlib import Path

import numpy as np
import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder, forget_lengths, load_predictions_by_file
from d2_ssod.artifacts.moved_files import match_files
from d2_ssod.artifacts.provenance import check_predictions, prediction_source
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json

FILES = ["a/1.png", "a/2.png", "b/1.png"]


def images(files=FILES, root="/data"):
    return [
        {"file_name": os.path.join(root, name), "image_id": number}
        for number, name in enumerate(files, start=1)
    ]


@pytest.fixture
def cfg(tmp_path):
    return bare_config(tmp_path)


@pytest.fixture
def made(cfg, tmp_path):
    """Predictions of phase 0 with the note of their source."""
    write_json(tmp_path / "phase_0" / "predictions_source.json", prediction_source(cfg, images()))
    write_json(tmp_path / "phase_0" / "predictions.json", [])
    return tmp_path / "phase_0" / "predictions.json"


def error_of(cfg, of_images, existing="predictions.json"):
    with pytest.raises(ConfigError) as info:
        check_predictions(cfg, 0, of_images)
    message = str(info.value)
    assert "\n" not in message
    assert f"{existing} was made" in message
    assert "delete it" in message
    return message


def test_the_note_says_how_many_images_there_were(cfg):
    assert prediction_source(cfg, images())["images"] == 3


def test_the_same_images_and_settings_pass(cfg, made):
    check_predictions(cfg, 0, images())


def test_a_data_set_that_was_moved_passes(cfg, made):
    check_predictions(cfg, 0, images(root="/mnt/copy"))


@pytest.mark.parametrize(
    "files",
    [
        FILES[:-1],
        ["a/0.png", *FILES[1:]],
        ["a/1.png", "a/3.png", "b/1.png"],
    ],
)
def test_other_images_are_refused(cfg, made, files):
    assert f"of 3 images that are not the {len(files)}" in error_of(cfg, images(files))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("SSOD.TTA.ENABLED", True, "SSOD.TTA.ENABLED was False and is True"),
        ("INPUT.MIN_SIZE_TEST", 600, "INPUT.MIN_SIZE_TEST was 800 and is 600"),
        ("INPUT.MAX_SIZE_TEST", 99, "INPUT.MAX_SIZE_TEST was 1333 and is 99"),
        ("INPUT.FORMAT", "RGB", "INPUT.FORMAT was 'BGR' and is 'RGB'"),
        ("TEST.DETECTIONS_PER_IMAGE", 7, "TEST.DETECTIONS_PER_IMAGE was 100 and is 7"),
        ("SSOD.INFERENCE_BATCH_SIZE", 3, "SSOD.INFERENCE_BATCH_SIZE "),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2, "SCORE_THRESH_TEST was 0.05 and is 0.2"),
    ],
)
def test_other_settings_are_refused(cfg, made, key, value, named):
    cfg.merge_from_list([key, value])
    assert named in error_of(cfg, images())


def test_settings_that_inference_does_not_read_do_not_count(cfg, made):
    cfg.merge_from_list(["TEST.AUG.MAX_SIZE", 77, "SOLVER.BASE_LR", 0.5])
    check_predictions(cfg, 0, images())


def test_scales_count_in_multi_transform_inference(cfg, tmp_path):
    cfg.SSOD.TTA.ENABLED = True
    write_json(tmp_path / "phase_0" / "predictions_source.json", prediction_source(cfg, images()))
    write_json(tmp_path / "phase_0" / "predictions.json", [])
    check_predictions(cfg, 0, images())
    cfg.INPUT.MIN_SIZE_TEST = 77  # which its views do not have
    check_predictions(cfg, 0, images())
    cfg.TEST.AUG.MIN_SIZES = (400, 500)
    assert "TEST.AUG.MIN_SIZES" in error_of(cfg, images())


def test_one_stage_models_have_their_own_keys(cfg, tmp_path):
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    write_json(tmp_path / "phase_0" / "predictions_source.json", prediction_source(cfg, images()))
    write_json(tmp_path / "phase_0" / "predictions.json", [])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.3
    check_predictions(cfg, 0, images())
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.3
    assert "MODEL.RETINANET.SCORE_THRESH_TEST" in error_of(cfg, images())


def test_ids_may_be_of_numpy(cfg, made):
    check_predictions(cfg, 0, [{**i, "image_id": np.int64(i["image_id"])} for i in images()])


def test_an_image_that_is_gone_is_named(cfg, made):
    gone = images()[1]["file_name"]
    for now in (images(), images(root="/mnt/copy")):
        said = error_of(cfg, [now[0], *now[2:]])
        assert f"DATASETS.UNLABELED has now, such as {gone}; " in said
    of_a = [image for image in images(root="/mnt/copy") if "/a/" in image["file_name"]]
    assert "such as" in error_of(cfg, of_a)  # the folder b is gone
    assert "/b/1.png; " in error_of(cfg, of_a)
    assert "such as" not in error_of(cfg, images(["x.png", "y.png"]))  # all are others


def test_incomplete_predictions_of_other_images_are_refused(cfg, made):
    made.unlink()
    (made.parent / "partial_predictions").mkdir()
    check_predictions(cfg, 0, images())
    assert "not the 1" in error_of(cfg, images(["x.png"]), existing="partial_predictions")


def test_predictions_without_a_note_are_taken(cfg, made):
    (made.parent / "predictions_source.json").unlink()
    check_predictions(cfg, 0, images(["x.png"]))


def test_a_note_without_predictions_does_not_matter(cfg, made):
    made.unlink()
    check_predictions(cfg, 0, images(["x.png"]))


@pytest.mark.parametrize(
    "files",
    [
        ["a/0.png", *FILES],  # one before them: the ids of all others shift
        [*FILES, "c/1.png"],
        ["x/1.png", *(f"old/{file}" for file in FILES)],  # another common folder
    ],
)
def test_images_that_were_added_are_told_apart(cfg, made, files):
    assert check_predictions(cfg, 0, images()) is True
    assert check_predictions(cfg, 0, images(files)) is False


def test_the_same_images_by_other_ids_are_renumbered(cfg, made):
    assert check_predictions(cfg, 0, images(FILES[::-1])) is False
    assert (
        check_predictions(cfg, 0, [{**i, "image_id": i["image_id"] + 5} for i in images()]) is False
    )


def test_added_images_and_other_settings_are_refused(cfg, made):
    cfg.SSOD.TTA.ENABLED = True
    assert "SSOD.TTA.ENABLED" in error_of(cfg, images([*FILES, "c/1.png"]))


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.pop("image_ids"),
        lambda note: note["image_ids"].pop(),
        lambda note: note["bytes"].pop(),
        lambda note: note["files"].__setitem__(0, 3),
    ],
)
def test_a_note_that_is_not_whole_is_named(cfg, made, change):
    note = prediction_source(cfg, images())
    change(note)
    write_json(made.with_name("predictions_source.json"), note)
    with pytest.raises(ConfigError, match=r"predictions_source\.json: "):
        check_predictions(cfg, 0, images())


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (FILES, {"a/1.png": 1, "a/2.png": 2, "b/1.png": 3}),
        (["a/0.png", *FILES], {"a/1.png": 2, "a/2.png": 3, "b/1.png": 4}),
        (["b/a/1.png", *(f"old/{f}" for f in FILES)], {"a/1.png": 2, "a/2.png": 3, "b/1.png": 4}),
        (["a/1.png", "a/2.png", "c/1.png"], None),
        (["xa/1.png", "xa/2.png", "xb/1.png", "y/1.png"], None),  # no whole names of folders
    ],
)
def test_files_that_were_moved_are_found_by_their_names(now, expected):
    found = match_files([f"/old/{file}" for file in FILES], images(now))
    assert found == (expected and {f"/old/{file}": number for file, number in expected.items()})


FRAMES = ["1.png", "2.png"]


def test_files_are_those_of_their_folder_where_another_one_has_the_same_names(cfg, made):
    day_2 = images(FRAMES, "/data/day2")
    write_json(made.with_name("predictions_source.json"), prediction_source(cfg, day_2))
    both = images(["day1/1.png", "day1/2.png", "day1/3.png", "day2/1.png", "day2/2.png"])
    assert check_predictions(cfg, 0, both) is False
    assert match_files([f"/data/day2/{name}" for name in FRAMES], both) == {
        "/data/day2/1.png": 4,
        "/data/day2/2.png": 5,
    }
    # Moved, they may be those of either folder.
    moved = images([image["file_name"][len("/data/") :] for image in both], "/mnt")
    assert match_files([f"/data/day2/{name}" for name in FRAMES], moved) is None
    assert "of 2 images that are not the 5" in error_of(cfg, moved)
    assert match_files([f"/data/day2/{name}" for name in FRAMES], moved[3:]) is not None


def test_a_folder_with_the_same_names_is_not_the_one_of_which_a_picture_is_gone():
    """They may be of one length, as frames without compression are."""
    noted = [f"/data/day1/{n}.bmp" for n in range(3)]
    now = images(["day1/0.bmp", "day1/1.bmp", *(f"day2/{n}.bmp" for n in range(3))])
    assert match_files(noted, now) is None


def test_pictures_that_were_replaced_are_told_by_the_lengths_of_their_files(cfg, made, tmp_path):
    pictures = images(FILES, str(tmp_path))
    for number, image in enumerate(pictures):
        Path(image["file_name"]).parent.mkdir(exist_ok=True)
        Path(image["file_name"]).write_bytes(bytes(number))
    note = prediction_source(cfg, pictures)
    write_json(made.with_name("predictions_source.json"), note)
    assert check_predictions(cfg, 0, pictures) is True
    note["bytes"][2] += 1
    write_json(made.with_name("predictions_source.json"), note)
    message = f"before pictures were replaced by others of their names, such as {tmp_path}/b/1.png"
    assert message in error_of(cfg, pictures)
    with pytest.raises(ConfigError, match="pictures were replaced by others"):
        load_predictions_by_file(RunFolder(tmp_path).phase(0), pictures, [1])
    Path(pictures[2]["file_name"]).write_bytes(bytes(3))
    write_json(made.with_name("predictions_source.json"), prediction_source(cfg, pictures))
    Path(pictures[2]["file_name"]).write_bytes(bytes(4))
    forget_lengths()  # of the same process, a notebook's
    assert "before pictures were replaced" in error_of(cfg, pictures)
    note["bytes"][2] = -1  # not known, as it was not there
    write_json(made.with_name("predictions_source.json"), note)
    assert check_predictions(cfg, 0, pictures) is True


@pytest.mark.parametrize(
    ("key", "value"), [("MIN_SIZES", (99,)), ("MAX_SIZE", 99), ("FLIP", False)]
)
def test_each_key_of_multi_transform_inference_counts(cfg, tmp_path, key, value):
    cfg.SSOD.TTA.ENABLED = True
    write_json(tmp_path / "phase_0" / "predictions_source.json", prediction_source(cfg, images()))
    write_json(tmp_path / "phase_0" / "predictions.json", [])
    cfg.TEST.AUG[key] = value
    assert f"TEST.AUG.{key}" in error_of(cfg, images())


OF_ONE_STAGE = ["SCORE_THRESH_TEST", "TOPK_CANDIDATES_TEST", "NMS_THRESH_TEST"]


@pytest.mark.parametrize(
    ("architecture", "section", "keys"),
    [
        ("GeneralizedRCNN", "RPN", ["PRE_NMS_TOPK_TEST", "POST_NMS_TOPK_TEST", "NMS_THRESH"]),
        ("GeneralizedRCNN", "ROI_HEADS", ["SCORE_THRESH_TEST", "NMS_THRESH_TEST"]),
        ("RetinaNet", "RETINANET", OF_ONE_STAGE),
        ("SSD", "SSD", OF_ONE_STAGE),
    ],
)
def test_all_that_decides_what_a_detector_finds_counts(cfg, tmp_path, architecture, section, keys):
    cfg.MODEL.META_ARCHITECTURE = architecture
    write_json(tmp_path / "phase_0" / "predictions_source.json", prediction_source(cfg, images()))
    write_json(tmp_path / "phase_0" / "predictions.json", [])
    for key in keys:
        other = cfg.clone()
        other.MODEL[section][key] = type(cfg.MODEL[section][key])(cfg.MODEL[section][key] * 2)
        assert f"MODEL.{section}.{key}" in error_of(other, images())


def test_a_note_that_has_an_id_twice_is_damaged(cfg, made):
    note = prediction_source(cfg, images())
    note["image_ids"][2] = note["image_ids"][0]
    write_json(made.with_name("predictions_source.json"), note)
    with pytest.raises(ConfigError, match="an entry for each image, of an id of its own; it is d"):
        check_predictions(cfg, 0, images())
