"""What all processes of a run must have in common."""

import pytest
import runs
from detectron2.utils import comm
from test_group import start_machines
from test_interruption import assert_none_left
from torch import nn

from d2_ssod.engine.processes import agreement
from d2_ssod.engine.processes.agreement import (
    agree_on_config,
    agree_on_folder,
    agree_on_images,
    agree_on_weights,
    on_main_process,
)
from d2_ssod.errors import ConfigError


def end_with_one_line(machines):
    """All end with code 2 and this line, of which there is one for each machine."""
    lines = set()
    for run in machines:
        stdout, stderr = run.communicate(timeout=90)
        assert run.returncode == 2, stderr
        assert "Traceback" not in stdout + stderr
        lines |= {line for line in stderr.splitlines() if line.startswith("error: ")}
        assert stderr.count("error: ") == 1
        assert_none_left(run)
    (line,) = lines
    return line


def test_machines_with_folders_of_their_own_end_with_one_line(data, tmp_path, monkeypatch):
    outputs = [tmp_path / "one", tmp_path / "two"]
    line = end_with_one_line(start_machines(data, outputs, "none", monkeypatch))
    assert "OUTPUT_DIR is not one folder: rank 1 on " in line
    assert f"(in {outputs[1]}) cannot see what rank 0 on " in line
    assert f"writes into {outputs[0]}; put OUTPUT_DIR on a file system that all" in line
    assert not outputs[1].exists()
    assert [path.name for path in outputs[0].iterdir()] == ["run.lock"]


def test_machines_with_different_configs_end_with_one_line(data, tmp_path, monkeypatch):
    (tmp_path / "phase_0").mkdir()  # of an earlier run, which stays where it is
    own = [{"SOLVER__BASE_LR": 0.01}, {"SOLVER__BASE_LR": 0.02}]
    outputs, fault = [tmp_path, tmp_path], "aborts when finalized"
    line = end_with_one_line(start_machines(data, outputs, fault, monkeypatch, own, SEED=1))
    assert "SOLVER.BASE_LR is 0.01 on rank 0 (" in line
    assert "and 0.02 on rank 1 (" in line
    assert "same config file" in line
    assert (tmp_path / "phase_0").exists()


def test_machines_that_agree_train_together(data, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "output")
    (tmp_path / "output").mkdir()
    outputs = [tmp_path / "output", tmp_path / "link"]
    length = {"SSOD__SCHEDULE__MAX_ITER": [2]}
    for run in start_machines(data, outputs, "aborts when finalized", monkeypatch, **length):
        stdout, stderr = run.communicate(timeout=90)
        assert run.returncode == 0, stderr
        assert "exit functions of " in stdout
    assert (tmp_path / "output" / "phase_0" / "model_final.pth").exists()
    assert not list((tmp_path / "output").glob(".*"))


# Without processes


@pytest.fixture
def two_ranks(monkeypatch):
    """Have this process be the first of two, the other of which says what a test gives."""
    said = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, said.pop(0)])
    monkeypatch.setattr(agreement.platform, "node", lambda: "one")
    return said


def settings_of(cfg):
    return {key: repr(value) for key, value in agreement.flat_keys(cfg) if key != "OUTPUT_DIR"}


def test_the_folder_may_have_a_name_on_each_machine(two_ranks, tmp_path):
    cfg = runs.bare_config(tmp_path)
    two_ranks.append(("two", {"--resume": "True", **settings_of(cfg)}))
    agree_on_config(cfg, resume=True)


def test_flags_and_keys_that_differ_are_named_with_their_values(two_ranks, tmp_path):
    cfg = runs.bare_config(tmp_path)
    theirs = {"--eval-only": "False", **settings_of(cfg)}
    theirs |= {"SEED": "7", "VERSION": "9", "VIS_PERIOD": "3"}
    two_ranks.append(("two", theirs))
    with pytest.raises(ConfigError) as info:
        agree_on_config(cfg, eval_only=True)
    line = str(info.value)
    assert "--eval-only is True on rank 0 (one) and False on rank 1 (two); " in line
    assert line.count("on rank 1") == 3
    assert "; and 1 more; start all machines with the same" in line


def test_a_file_that_comes_late_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement.time, "sleep", lambda _: (tmp_path / "late").touch())
    assert agreement._appears(tmp_path, "late")


def test_a_folder_that_does_not_exist_is_not_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "_PATIENCE", 0.0)
    assert not agreement._appears(tmp_path / "none", "name")


def test_ranks_that_do_not_see_the_folder_are_named_by_machine(two_ranks, tmp_path, monkeypatch):
    blind = [("two", "/b", False), ("two", "/b", False), ("three", "/b", False)]
    answers = iter([["name"], [(None, None)], [("one", str(tmp_path), True), *blind]])
    monkeypatch.setattr(comm, "all_gather", lambda own: next(answers))
    with pytest.raises(ConfigError) as info:
        agree_on_folder(tmp_path)
    who = "ranks 1 and 2 on two (in /b); rank 3 on three (in /b) cannot see what rank 0 on one"
    assert who in str(info.value)
    assert not list(tmp_path.iterdir())


def test_one_process_writes_nothing(tmp_path):
    agree_on_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_other_weights_on_a_rank_are_refused(two_ranks, monkeypatch):
    model, first = nn.BatchNorm1d(3), []

    def gather(own):
        first.append(own[1])
        return [own, ("two", first[0])]

    monkeypatch.setattr(comm, "all_gather", gather)
    agree_on_weights(model)
    agree_on_weights(model)
    nn.init.constant_(model.bias, 1.0)
    with pytest.raises(ConfigError, match=r" on rank 0 \(one\) and .* on rank 1 \(two\); copy"):
        agree_on_weights(model)


def test_an_error_of_the_main_process_is_its_own(two_ranks):
    two_ranks.append((None, None))
    with pytest.raises(OSError, match="full"):
        on_main_process(lambda: (_ for _ in ()).throw(OSError(28, "full")))


def test_another_fault_of_the_main_process_is_told_to_the_others(two_ranks, monkeypatch):
    told = []
    monkeypatch.setattr(comm, "all_gather", lambda own: [told.append(own[1]) or own])
    with pytest.raises(KeyError):
        on_main_process(lambda: {}["missing\nkey"])
    assert told == [r"KeyError: 'missing\nkey'"]


def test_an_error_of_the_main_process_ends_the_others(two_ranks, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda own: [(None, "OUTPUT_DIR is in use"), own])
    with pytest.raises(ConfigError, match=r"^rank 0: OUTPUT_DIR is in use$"):
        on_main_process(lambda: 1 / 0)


def test_what_the_main_process_sees_decides_for_all(monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda own: [(True, None), own])
    assert on_main_process(lambda: 1 / 0) is True


CROWD = {"bbox": [0, 0, 9, 9], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
IMAGES = [{"file_name": f"/data/{number}.png", "image_id": number} for number in range(3)]


def test_images_may_lie_in_another_folder_on_each_machine(two_ranks):
    theirs = [{**image, "file_name": f"/scratch{image['file_name']}"} for image in IMAGES]
    two_ranks.append(("two", {"UNLABELED": agreement._fingerprint(theirs)}))
    agree_on_images({"UNLABELED": IMAGES})


@pytest.mark.parametrize(
    ("theirs", "count"),
    [
        (IMAGES[1:], 2),
        ([*IMAGES[:2], {"file_name": "/data/4.png", "image_id": 2}], 3),
        ([*IMAGES[:2], {**IMAGES[2], "image_id": 9}], 3),
        ([*IMAGES[:2], {**IMAGES[2], "annotations": [CROWD]}], 3),
    ],
    ids=["missing", "another name", "another id", "a crowd more"],
)
def test_images_that_differ_are_named_by_data_set_and_machine(two_ranks, theirs, count):
    found = {"TRAIN": agreement._fingerprint([]), "UNLABELED": agreement._fingerprint(theirs)}
    two_ranks.append(("two", found))
    numbers = rf"UNLABELED is 3 images .* on rank 0 \(one\) and {count} images .* on rank 1"
    with pytest.raises(ConfigError, match=numbers):
        agree_on_images({"TRAIN": [], "UNLABELED": IMAGES})


def test_images_of_one_process_are_not_compared(monkeypatch):
    monkeypatch.setattr(agreement, "_fingerprint", None)  # would fail if called
    agree_on_images({"TRAIN": IMAGES})
