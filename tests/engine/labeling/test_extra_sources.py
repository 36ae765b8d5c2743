"""Predictions of other models are those of the same pictures."""

import shutil

import numpy as np
import pytest
import runs
from samples import detections

from d2_ssod.artifacts import RunFolder, prediction_source, save_classes, save_predictions
from d2_ssod.engine.labeling.extra_sources import load_extra_sources
from d2_ssod.engine.run_data import RunData
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json

FOUND = {1: detections((0, 0, 9, 9, 0.5, 0)), 2: detections((0, 0, 5, 5, 0.5, 0))}


def a_folder(*names):
    """As a folder numbers its pictures."""
    return [
        {"file_name": f"/data/{name}", "image_id": number, "width": 100, "height": 80}
        for number, name in enumerate(sorted(names), start=1)
    ]


def data_of(*names):
    return RunData([], a_folder(*names), np.ones(1), ["cat"], [7])


def a_run(folder, *names, predictions=None):
    """Leave phase 0's predictions, if given, and the note of what they are of."""
    cfg = runs.bare_config(folder)
    files = RunFolder(folder).phase(0)
    files.folder.mkdir(parents=True)
    write_json(files.predictions_source, prediction_source(cfg, a_folder(*names)))
    if predictions is not None:
        save_predictions(files.predictions, predictions, [7])
    return cfg, files


def heights(source):
    return {image_id: of.boxes[:, 3].tolist() for image_id, of in source.items()}


def test_those_of_another_run_are_found_by_the_names_of_the_files(tmp_path):
    _, other = a_run(tmp_path / "other", "b.png", "c.png", predictions=FOUND)
    cfg = runs.bare_config(tmp_path / "own")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(other.predictions)]
    (found,) = load_extra_sources(cfg, data_of("b.png", "c.png"))
    assert heights(found) == {1: [9], 2: [5]}
    with pytest.raises(ConfigError, match=r"has nothing on 1 of the 3 .*, such as /data/a\.png"):
        load_extra_sources(cfg, data_of("a.png", "b.png", "c.png"))
    other.predictions_source.unlink()  # then by their ids, as of any file
    (found,) = load_extra_sources(cfg, data_of("a.png", "b.png", "c.png"))
    assert heights(found) == {1: [9], 2: [5], 3: []}


def test_a_picture_that_is_listed_twice_has_its_predictions_twice(tmp_path):
    _, other = a_run(tmp_path / "other", "b.png", "c.png", predictions=FOUND)
    cfg, data = runs.bare_config(tmp_path / "own"), data_of("b.png", "c.png")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(other.predictions)]
    data.unlabeled.append({**data.unlabeled[0], "image_id": 3})
    (found,) = load_extra_sources(cfg, data)
    assert heights(found) == {1: [9], 2: [5], 3: [9]}


def test_a_run_with_more_images_has_predictions_of_these(tmp_path):
    _, other = a_run(tmp_path / "other", "b.png", "c.png", predictions=FOUND)
    cfg = runs.bare_config(tmp_path / "own")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(other.predictions)]
    (found,) = load_extra_sources(cfg, data_of("c.png"))
    assert heights(found) == {1: [5]}
    with pytest.raises(ConfigError, match=r"has nothing on 1 of the 2 .*, such as /data/d\.png"):
        load_extra_sources(cfg, data_of("c.png", "d.png"))


@pytest.mark.parametrize(
    ("there", "are_alike", "folder", "is_found"),
    [
        (True, True, "cam1", True),
        (True, True, "cam2", True),  # copies
        (True, False, "cam1", False),
        (True, False, "cam2", False),
        (False, None, "cam1", True),
        (False, None, "cam2", False),  # perhaps of another camera, and not moved at all
    ],
)
@pytest.mark.parametrize("more", [0, 2])
def test_those_of_other_pictures_of_the_same_names_are_not_taken(
    tmp_path, there, are_alike, folder, is_found, more
):
    """As frames of two cameras are called, and of one length, if they are not compressed."""
    cfg, own = runs.bare_config(tmp_path / "own"), tmp_path / "here" / folder
    names = [f"{number}.bmp" for number in range(3 + more)]
    theirs = [tmp_path / "cam1" / name for name in names]
    for parent, content in ((tmp_path / "cam1", 1), (own, 1 if are_alike else 2)):
        parent.mkdir(parents=True)
        for name in names:
            (parent / name).write_bytes(bytes([content]))
    files = RunFolder(tmp_path / "other").phase(0)
    files.folder.mkdir(parents=True)
    noted = [{"file_name": str(f), "image_id": n} for n, f in enumerate(theirs)]
    write_json(files.predictions_source, prediction_source(cfg, noted))
    save_predictions(files.predictions, dict.fromkeys(range(3 + more), FOUND[1]), [7])
    if not there:
        shutil.rmtree(tmp_path / "cam1")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(files.predictions)]
    images = [{"file_name": str(own / f"{n}.bmp"), "image_id": 9 - n} for n in range(3)]
    data = RunData([], images, np.ones(1), ["cat"], [7])
    if is_found:
        assert heights(load_extra_sources(cfg, data)[0]) == {9: [9], 8: [9], 7: [9]}
        return
    with pytest.raises(
        ConfigError, match=r"such as .*/cam1/0\.bmp, that are not known to be those"
    ):
        load_extra_sources(cfg, data)


def test_those_of_a_run_with_other_classes_are_refused(tmp_path):
    """They have the same category ids, but the numbers mean something else."""
    _, other = a_run(tmp_path / "other", "b.png", "c.png", predictions=FOUND)
    cfg = runs.bare_config(tmp_path / "own")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(other.predictions)]
    save_classes(RunFolder(tmp_path / "other"), ["dog"])
    with pytest.raises(ConfigError, match=r"other classes .missing 'cat', additional 'dog'"):
        load_extra_sources(cfg, data_of("b.png", "c.png"))
    save_classes(RunFolder(tmp_path / "other"), ["cat"])
    assert len(load_extra_sources(cfg, data_of("b.png", "c.png"))) == 1


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("phase_0/predictions.json", lambda text: text.replace("7", "8")),
        ("phase_0/predictions.json", lambda text: text[:-9]),
        ("phase_0/predictions_source.json", lambda text: text[:-9]),
        ("phase_0/predictions_source.json", lambda text: text.replace("image_ids", "ids")),
        ("phase_0/predictions_source.json", lambda text: text.replace("b.png", "")),
        ("classes.json", lambda text: text[:-9]),
        ("classes.json", lambda text: text.replace('"cat"', "3")),
    ],
)
def test_nobody_is_told_to_delete_what_another_run_has_made(tmp_path, name, damage):
    _, other = a_run(tmp_path / "other", "b.png", "c.png", predictions=FOUND)
    save_classes(RunFolder(tmp_path / "other"), ["cat"])
    path = tmp_path / "other" / name
    path.write_text(damage(path.read_text()))
    cfg = runs.bare_config(tmp_path / "own")
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(other.predictions)]
    with pytest.raises(ConfigError) as info:
        load_extra_sources(cfg, data_of("b.png", "c.png"))
    assert "delete" not in str(info.value).replace(str(tmp_path), "")


def test_ids_that_mean_other_files_since_images_were_added_are_refused(tmp_path):
    cfg, _ = a_run(tmp_path / "own", "b.png", "c.png")
    save_predictions(tmp_path / "other.json", FOUND, [7])
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(tmp_path / "other.json")]
    for names in (("b.png", "c.png"), ("b.png", "c.png", "d.png")):
        assert heights(load_extra_sources(cfg, data_of(*names))[0])[2] == [5]
    with pytest.raises(ConfigError, match=r"2 mean others .*, such as 1, which was .*/b\.png"):
        load_extra_sources(cfg, data_of("a.png", "b.png", "c.png"))


def test_ids_are_checked_whatever_a_file_without_a_note_is_called(tmp_path):
    cfg, _ = a_run(tmp_path / "own", "b.png", "c.png")
    (tmp_path / "elsewhere").mkdir()
    path = save_predictions(tmp_path / "elsewhere" / "predictions.json", FOUND, [7])
    cfg.SSOD.CONSENSUS.EXTRA_SOURCES = [str(path)]
    with pytest.raises(ConfigError, match=r"2 mean others .*, such as 1, which was .*/b\.png"):
        load_extra_sources(cfg, data_of("a.png", "b.png", "c.png"))
