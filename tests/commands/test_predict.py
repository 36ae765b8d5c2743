import argparse
import contextlib
import errno
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
import runs
import torch
from detectron2.modeling import build_model
from PIL import Image
from runs import bare_config
from samples import scored
from torch import nn

from d2_ssod.artifacts import (
    AtomicCheckpointer,
    RunFolder,
    save_classes,
    save_ensemble_validation,
    save_validation,
)
from d2_ssod.commands import kept_predictions, main, targets
from d2_ssod.commands import predict as command
from d2_ssod.demo import digit_scenes

CLASSES = ["zero", "one", "two", "three", "four"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The folder of a run of two phases, whose models are random."""
    root = tmp_path_factory.mktemp("run") / "output"
    cfg = bare_config(root)
    cfg.merge_from_file(str(runs.CONFIG_FILE))
    cfg.merge_from_list(["OUTPUT_DIR", "elsewhere", "SSOD.NUM_PHASES", "1", "MODEL.DEVICE", "cpu"])
    cfg.SSOD.INFERENCE_BATCH_SIZE = 1
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    folder = RunFolder(root)
    for phase in (0, 1):
        torch.manual_seed(phase)
        folder.phase(phase).folder.mkdir(parents=True)
        checkpointer = AtomicCheckpointer(build_model(cfg), str(folder.phase(phase).folder))
        checkpointer.save("model_final")
    folder.config.write_text(cfg.dump())
    save_classes(folder, CLASSES)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    digit_scenes.generate(root, sizes={"labeled": 3, "unlabeled": 1, "test": 1})
    return digit_scenes.image_folder(root, "labeled")


def predicted(capsys, *arguments):
    """Exit code, what is printed, and what is said to be wrong."""
    with pytest.raises(SystemExit) as caught:
        main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "it/s" not in line]
    return caught.value.code, captured.out, "\n".join(errors)


@pytest.mark.parametrize("which", [(), ("--phase", "0"), ("--ensemble",)])
def test_all_that_is_asked_for_is_written(output, pictures, tmp_path, capsys, which):
    places = ("--json", tmp_path / "a.json", "--yolo", tmp_path / "y", "--draw", tmp_path / "d")
    code, text, _ = predicted(capsys, output, pictures, *which, "--score", "0.01", *places)
    assert code == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert [category["name"] for category in content["categories"]] == CLASSES
    assert len(content["images"]) == 3
    boxes = content["annotations"]
    assert f"3 pictures, {len(boxes)} boxes" in text
    assert boxes
    assert all(box["score"] >= 0.01 for box in boxes)
    for image in content["images"]:
        stem = image["file_name"].split("/")[-1].removesuffix(".png")
        lines = (tmp_path / "y" / f"{stem}.txt").read_text().splitlines()
        own = [box for box in boxes if box["image_id"] == image["id"]]
        assert len(lines) == len(own)
        if own:
            number, x, _, w, _, score = map(float, lines[0].split())
            assert own[0]["category_id"] == number + 1
            assert own[0]["bbox"][2] == pytest.approx(w * image["width"], abs=0.02)
            assert own[0]["bbox"][0] == pytest.approx((x - w / 2) * image["width"], abs=0.02)
            assert own[0]["score"] == pytest.approx(score)
        drawn = Image.open(tmp_path / "d" / f"{stem}.jpg")
        assert np.asarray(drawn).std() > 0


def test_models_differ(output, pictures, tmp_path, capsys):
    found = []
    for number, which in enumerate([("--phase", "0"), (), ("--ensemble",)]):
        path = tmp_path / f"{number}.json"
        predicted(capsys, output, pictures, *which, "--score", "0", "--json", path)
        found.append(json.loads(path.read_text())["annotations"])
    assert found[0] != found[1] != found[2] != found[0]


def test_models_of_several_runs_are_fused(output, pictures, tmp_path, capsys):
    def found(*which):
        predicted(capsys, output, pictures, "--score", "0", *which, "--json", tmp_path / "a.json")
        return json.loads((tmp_path / "a.json").read_text())["annotations"]

    other = RunFolder(tmp_path / "other")
    shutil.copytree(output, other.root)
    shutil.copy(other.phase(0).model, other.phase(1).model)
    both = found("--ensemble")  # phase 0 and 1 of one run
    assert found("--with", other.root) == both
    # Weights of phases are not those of runs.
    text = RunFolder(output).config.read_text()
    try:
        RunFolder(output).config.write_text(re.sub(r"WEIGHTS: \[\]", "WEIGHTS: [1.0, 9.0]", text))
        assert found("--ensemble") != both
        assert found("--with", other.root) == both
    finally:
        RunFolder(output).config.write_text(text)


@pytest.fixture
def interrupted(output, pictures, tmp_path, capsys, monkeypatch):
    """What ``--json`` is to write, after a call that ended with its second picture."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build, path = command.build_inference_loader, tmp_path / "found.json"

    def two(*arguments, **keys):
        yield from itertools.islice(build(*arguments, **keys), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "build_inference_loader", two)
        with pytest.raises(KeyboardInterrupt):
            main(["predict", str(output), str(pictures), "--json", str(path)])
    capsys.readouterr()
    assert not path.exists()
    return path


def kept_in(tmp_path):
    return list((tmp_path / "cache" / "d2_ssod" / "predictions").iterdir())


def test_where_nothing_can_be_kept_it_is_said(output, pictures, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    code, text, errors = predicted(capsys, output, pictures, "--json", tmp_path / "a.json")
    assert (code, "3 pictures" in text) == (0, True)
    assert "is not kept in case of an interruption" in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_where_nothing_can_be_kept_any_more_it_is_said_once(
    output, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(kept_predictions, "keep_partial_predictions", onto_full_disk)
    code, text, errors = predicted(capsys, output, pictures, "--json", tmp_path / "a.json")
    assert (code, "3 pictures" in text) == (0, True)
    assert errors.count("is not kept in case of an interruption: ") == 1
    assert "No space left on device" in errors


@contextlib.contextmanager
def onto_full_disk(folder):
    with open("/dev/full", "w", encoding="utf-8") as file:
        file.write("what its end cannot write, either")

        def keep(predictions):
            file.write("boxes")
            file.flush()

        yield keep


def test_what_an_interrupted_call_has_found_is_not_looked_for_again(
    output, pictures, interrupted, tmp_path, capsys
):
    (kept,) = kept_in(tmp_path)
    elsewhere = ("--json", tmp_path / "whole.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        predicted(capsys, output, pictures, "--score", "0.01", *elsewhere)
    assert kept_in(tmp_path) == [kept]
    call = (output, pictures, "--score", "0.01", "--json", interrupted)  # another score will do
    code, _, errors = predicted(capsys, *call)
    assert code == 0
    assert "2 of 3 pictures were predicted before" in errors
    assert interrupted.read_text() == (tmp_path / "whole.json").read_text()
    assert kept_in(tmp_path) == []
    assert "before" not in predicted(capsys, *call)[2]


def test_what_another_model_has_found_is_not_taken(output, pictures, interrupted, tmp_path, capsys):
    predicted(capsys, output, pictures, "--phase", "0", "--json", tmp_path / "whole.json")
    code, _, errors = predicted(capsys, output, pictures, "--phase", "0", "--json", interrupted)
    assert code == 0
    assert "before" not in errors
    assert interrupted.read_text() == (tmp_path / "whole.json").read_text()
    assert len(kept_in(tmp_path)) == 1
    (old,) = kept_in(tmp_path)
    for path in (*old.iterdir(), old):
        os.utime(path, (0, 0))
    predicted(capsys, output, pictures, "--phase", "0", "--json", interrupted)
    assert kept_in(tmp_path) == []  # too old


def test_what_was_found_in_other_pictures_is_not_taken(
    output, pictures, interrupted, tmp_path, capsys
):
    shutil.copytree(pictures, tmp_path / "own")
    _, _, errors = predicted(capsys, output, tmp_path / "own", "--json", interrupted)
    assert "before" not in errors


def test_what_is_taken_of_an_unfinished_run_is_said(output, pictures, tmp_path, capsys):
    shutil.copytree(output, tmp_path / "part")
    RunFolder(tmp_path / "part").phase(1).model.unlink()
    code, _, errors = predicted(capsys, tmp_path / "part", pictures)
    assert code == 0
    assert f"{tmp_path}/part: takes phase 0, the last that was trained to its end, of" in errors


@pytest.mark.parametrize(
    ("aps", "ensemble", "best"),
    [
        ((30.0, 20.0), 0.0, "phase 0"),
        ((20.0, 30.0), 40.0, "phases 0 and 1, fused,"),
        ((20.0, 30.0), 0.0, None),
    ],
)
def test_that_another_phase_did_better_is_said(
    output, pictures, tmp_path, capsys, aps, ensemble, best
):
    shutil.copytree(output, tmp_path / "judged")
    folder = RunFolder(tmp_path / "judged")
    for phase, ap in enumerate(aps):
        save_validation(folder, phase, {"AP": ap})
    save_ensemble_validation(folder, 1, {"0~N": {"AP": ensemble}})
    _, _, errors = predicted(capsys, folder.root, pictures)
    said = f"takes phase 1, the last; on the validation images {best} did better (--phase"
    assert (said in errors) == (best is not None)
    assert ("did better" in errors) == (best is not None)


def test_a_damaged_validation_ends_no_prediction(output, pictures, tmp_path, capsys):
    shutil.copytree(output, tmp_path / "damaged")
    RunFolder(tmp_path / "damaged").phase(0).validation.write_text("{")
    code, _, errors = predicted(capsys, tmp_path / "damaged", pictures)
    assert (code, "did better" in errors) == (0, False)


def test_that_no_score_is_high_enough_is_said(output, pictures, capsys):
    code, _, errors = predicted(capsys, output, pictures, "--score", "1")
    assert code == 0
    assert re.search(r"no box has a score of 1 or more \(--score\): the best has 0\.\d+", errors)


def test_a_file_that_cannot_be_written_ends_with_a_line(
    output, pictures, tmp_path, capsys, monkeypatch
):
    def fail(folder, *arguments, **keys):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{folder}/a.txt")

    monkeypatch.setattr(command, "save_yolo", fail)
    code, _, errors = predicted(capsys, output, pictures, "--yolo", tmp_path / "y")
    assert code == 2
    remedy = "correct the path, its rights or free space on the disk"
    assert f"error: {tmp_path}/y/a.txt: No space left on device; {remedy}" in errors


def test_pictures_that_cannot_be_read_are_left_out_and_named(output, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "own")
    (tmp_path / "own" / "bad.png").write_text("<html>")
    code, text, errors = predicted(capsys, output, tmp_path / "own", tmp_path / "gone.png")
    assert code == 1
    assert text.count("\n") == 3
    assert f"left out: {tmp_path}/own/bad.png is not a readable image" in errors
    assert f"left out: {tmp_path}/gone.png does not exist" in errors


def test_patterns_and_repeated_pictures(output, pictures, capsys):
    files = sorted(map(str, pictures.iterdir()))
    assert command._expand([f"{pictures}/*.png", files[1], str(pictures)]) == (files, [])


def test_pictures_that_cannot_be_used_are_left_out_before_predicting(
    output, pictures, tmp_path, capsys
):
    own = shutil.copytree(pictures, tmp_path / "own")
    Image.new("RGB", (3000, 1)).save(own / "long.png")
    (own / "phone.heic").touch()
    code, text, errors = predicted(capsys, output, own)
    assert code == 1
    assert text.count("\n") == 3
    assert re.search(r"left out: .*long\.png is 3000 x 1 pixels, resized by INPUT", errors)
    assert re.search(r"left out: .*skipped .*phone\.heic; convert it", errors)
    only = tmp_path / "only"
    only.mkdir()
    (own / "phone.heic").rename(only / "phone.heic")
    code, _, errors = predicted(capsys, output, only)
    assert code == 2
    assert re.search(r"no pictures there; .*phone\.heic; convert it", errors)


def test_nothing_of_the_users_is_overwritten(output, pictures, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    for file in pictures.iterdir():
        Image.open(file).save(own / f"{file.stem}.jpg")
    labels = own / f"{file.stem}.txt"
    labels.write_text("0 .5 .5 .1 .1\n")
    before = {path: path.read_bytes() for path in own.iterdir()}
    of_person = own / "labels.json"
    photos, listed = tmp_path / "photos", tmp_path / "listed.json"
    photos.mkdir()
    shutil.copy(own / f"{file.stem}.jpg", photos)
    listed.write_text('{"images": [{"id": 1, "owner": 5}], "annotations": [], "categories": []}')
    of_person.write_text('{"annotations": [{"bbox": [1, 2, 3, 4]}]}')
    before[of_person] = of_person.read_bytes()
    for option, target, line in (
        ("--draw", own, "would overwrite the picture"),
        ("--draw", photos, "would overwrite the picture"),  # of somebody, not of those given
        ("--json", listed, "listed.json would overwrite a file"),
        ("--yolo", own, "a person's labels"),
        ("--json", of_person, "labels.json would overwrite a file that is none of this command's"),
        ("--json", labels, "would overwrite a file"),
    ):
        code, _, errors = predicted(capsys, output, own, option, target)
        assert code == 2
        assert line in errors
    assert before == {path: path.read_bytes() for path in own.iterdir()}
    for _ in range(2):  # its own files are, if it is asked again
        places = ("--draw", tmp_path / "d", "--yolo", tmp_path / "y", "--json", tmp_path / "j")
        assert predicted(capsys, output, own, *places, "--score", "0.01")[0] == 0


def test_a_target_that_cannot_be_written_is_said_first(
    output, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "predict", None)  # would fail if called
    code, _, errors = predicted(capsys, output, pictures, "--json", tmp_path / "no" / "x.json")
    assert code == 2
    assert f"--json {tmp_path / 'no' / 'x.json'} cannot be written (No such file" in errors


@pytest.mark.parametrize("score", ["30", "-1", "nan", "half"])
def test_a_score_that_is_none_is_refused(output, pictures, capsys, score):
    code, _, errors = predicted(capsys, output, pictures, "--score", score)
    assert code == 2
    assert f"{score!r} is not a number from 0 to 1" in errors


def test_a_picture_that_is_left_out_is_not_drawn_over(output, pictures, tmp_path, capsys):
    shutil.copy(next(pictures.iterdir()), tmp_path / "one.png")
    (tmp_path / "one.jpg").write_text("damaged, but to be mended")
    code, _, errors = predicted(capsys, output, tmp_path, "--draw", tmp_path)
    assert code == 2
    assert "would overwrite the picture one.jpg" in errors


def test_a_picture_that_is_named_in_several_ways_is_predicted_once(
    output, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(pictures)
    name = next(pictures.iterdir()).name
    (tmp_path / "link").symlink_to(pictures)
    places = (name, f"./{name}", pictures / name, tmp_path / "link" / name)
    code, out, _ = predicted(capsys, output, *places)
    assert code == 0
    assert len(out.splitlines()) == 1


def test_drawings_are_no_pictures_to_draw_on(output, pictures, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(pictures, own)
    for number in range(3):
        places = ("--draw", own / "drawn", "--json", tmp_path / "found.json")
        given = own / "**" / "*.*" if number == 2 else own
        code, _, errors = predicted(capsys, output, given, *places)
        assert code == 0
        assert ("left out, as --draw has drawn them: " in errors) == (number > 0)
        assert ("and 2 more" in errors) == (number > 0)
        assert len(json.loads((tmp_path / "found.json").read_text())["images"]) == 3
    # As a shell gives pictures/*: folders are named, and each drawing may be.
    code, out, errors = predicted(capsys, output, *own.iterdir(), *(own / "drawn").iterdir())
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "no pictures there" not in errors
    code, _, errors = predicted(capsys, output, own / "drawn")
    assert code == 2
    assert "and 2 more, and there are no others; name pictures or folders" in errors


def test_names_without_pictures_are_said(output, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = (pictures, tmp_path / "empty", tmp_path / "*.jpeg")
    code, out, errors = predicted(capsys, output, *places)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert f"left out: {tmp_path}/empty, {tmp_path}/*.jpeg: no pictures there" in errors


@pytest.mark.parametrize(
    ("option", "is_folder"), [("--json", True), ("--yolo", False), ("--draw", False)]
)
def test_targets_of_another_kind_are_said_first(
    output, pictures, tmp_path, capsys, monkeypatch, option, is_folder
):
    target = tmp_path / "there"
    target.mkdir() if is_folder else target.touch()
    monkeypatch.setattr(command, "predict", None)  # would fail if called
    code, _, errors = predicted(capsys, output, pictures, option, target)
    assert code == 2
    assert errors.startswith(f"error: {option} {target} is a ")


@pytest.mark.parametrize("option", ["--json", "--yolo", "--draw"])
def test_targets_that_cannot_be_written_are_said_first(
    output, pictures, tmp_path, capsys, monkeypatch, option
):
    def refuse(dir):
        assert dir == str(tmp_path)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.setattr(targets.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(command, "predict", None)  # would fail if called
    target = tmp_path / ("a.json" if option == "--json" else "new/folder")
    code, _, errors = predicted(capsys, output, pictures, option, target)
    assert code == 2
    assert errors.startswith(f"error: {option} {target} cannot be written (Permission denied); ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere", "a.png"], "/nowhere/config.yaml: no such file"),
        (["OUTPUT", "/nowhere/*.png"], "no pictures there"),
        (["OUTPUT", "PICTURES", "--phase", "7"], "phase_7/model_final.pth: no such file"),
        (["OUTPUT", "PICTURES", "--phase", "last"], "--phase is 'last'"),
        (["OUTPUT", "PICTURES", "--phase", "best"], "summary.json: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(output, pictures, capsys, arguments, message):
    given = [{"OUTPUT": output, "PICTURES": pictures}.get(part, part) for part in arguments]
    code, _, errors = predicted(capsys, *given)
    assert code == 2
    assert errors.startswith("error: ")
    assert message in errors
    assert "\n" not in errors


def test_models_that_are_chosen_keep_the_weights_of_their_phases(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load_phase_model", lambda cfg, phase: nn.Identity())
    monkeypatch.setattr(command, "EnsembleRCNN", FusedBy)
    cfg = bare_config(tmp_path)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.ENSEMBLE.WEIGHTS = 2, (1.0, 2.0, 3.0)
    assert command._model([(cfg, 1), (cfg, 2)], [cfg]).fusion.weights == (2.0, 3.0)


class FusedBy(nn.Module):
    """Knows by what it would be fused."""

    def __init__(self, models, fusion):
        super().__init__()
        self.fusion = fusion


def test_boxes_of_the_very_score_are_found(capsys):
    found = {1: scored(0.75, 0.5)}
    command._say_if_none_is_above(found, 0.75)
    assert capsys.readouterr().err == ""
    assert len(command._above(found, 0.5)[1]) == 2
    command._say_if_none_is_above({1: scored(), 2: scored()}, 0.5)
    assert "no box has a score of 0.5 or more (--score): there is none at all" in (
        capsys.readouterr().err
    )


def test_pictures_with_a_comment_of_others_are_no_drawings(output, pictures, tmp_path, capsys):
    picture = Image.open(next(pictures.iterdir()))
    for name, comment in (("one", b"my holiday"), ("two", b"drawn by d2_ssod")):
        picture.save(tmp_path / f"{name}.jpg", comment=comment)
    code, out, errors = predicted(capsys, output, tmp_path, tmp_path / "two.jpg")
    assert code == 0
    assert out.startswith(f"{tmp_path}/one.jpg: ")
    assert out.count("\n") == 1
    left_out = f"left out, as --draw has drawn them: {tmp_path}/two.jpg"
    assert left_out in errors.splitlines()
    code, _, errors = predicted(capsys, output, tmp_path / "two.jpg")
    assert code == 2
    assert f"error: {left_out}, and there are no others; name pictures or folders" in errors
    code, _, errors = predicted(capsys, output, pictures, "--draw", tmp_path)
    assert (code, "error" in errors) == (0, False)
    picture.save(tmp_path / f"{next(pictures.iterdir()).stem}.jpg", comment=b"my holiday")
    code, _, errors = predicted(capsys, output, pictures, "--draw", tmp_path)
    assert code == 2
    assert "would overwrite the picture" in errors


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_picture(output, pictures, tmp_path):
    shutil.copy(next(pictures.iterdir()), tmp_path / "one [2].png")
    place = str(tmp_path / "one [2].png")
    assert command._expand([place]) == ([place], [])


def test_a_picture_and_a_link_of_another_name_are_two(output, pictures, tmp_path):
    (tmp_path / "link.png").symlink_to(next(pictures.iterdir()))
    places = [str(next(pictures.iterdir())), str(tmp_path / "link.png")]
    assert command._expand(places) == (places, [])


def test_boxes_that_are_likely_objects_are_given_where_no_score_is_named():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(["output", "pictures"]).score == 0.3
