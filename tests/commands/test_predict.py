import json
import re
import shutil

import numpy as np
import pytest
import runs
import torch
from detectron2.modeling import build_model
from PIL import Image
from runs import bare_config

from d2_ssod.artifacts import AtomicCheckpointer, RunFolder, save_classes, save_validation
from d2_ssod.commands import main, trained_models
from d2_ssod.commands import predict as command
from d2_ssod.demo import digit_scenes
from d2_ssod.json_files import write_json

CLASSES = ["zero", "one", "two", "three", "four"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The folder of a run of two phases, whose models are random."""
    root = tmp_path_factory.mktemp("run") / "output"
    cfg = bare_config(root)
    cfg.merge_from_file(str(runs.CONFIG_FILE))
    cfg.merge_from_list(["OUTPUT_DIR", "elsewhere", "SSOD.NUM_PHASES", "1", "MODEL.DEVICE", "cpu"])
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


def test_best_phase_is_that_of_the_validation_or_else_of_the_test_images(tmp_path, capsys):
    _, text, _ = predicted(capsys, "--help")
    text = " ".join(text.split())
    assert "best AP on the validation images, or, without such, on the test images" in text
    folder = RunFolder(tmp_path)
    phases = [{"phase": n, "metrics": {"AP": ap}} for n, ap in enumerate([3.0, None, 5.0, 4.0])]
    write_json(folder.summary(), {"phases": phases})
    assert trained_models._best_phase(folder, 3) == 2
    for phase, ap in enumerate([3.0, 6.0, 5.0, 4.0]):
        save_validation(folder, phase, {"AP": ap})
    assert trained_models._best_phase(folder, 3) == 1


def test_models_of_several_runs_are_fused(output, pictures, tmp_path, capsys):
    def found(*which):
        predicted(capsys, output, pictures, "--score", "0", *which, "--json", tmp_path / "a.json")
        return json.loads((tmp_path / "a.json").read_text())["annotations"]

    shutil.copytree(output, tmp_path / "other")
    (tmp_path / "other" / "phase_1" / "model_final.pth").unlink()  # so its last one is phase 0
    assert found("--with", tmp_path / "other") == found("--ensemble")
    twice = found("--with", tmp_path / "other", "--with", tmp_path / "other")
    assert twice != found("--ensemble")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"classes": [*CLASSES[:4], "nine"]}, "other classes than .*: missing 'four', additional"),
        ({"size": 64}, r"INPUT\.MIN_SIZE_TEST is 64, but 128 in "),
    ],
)
def test_runs_that_do_not_fit_are_not_fused(output, pictures, tmp_path, capsys, edit, message):
    other = RunFolder(tmp_path / "other")
    shutil.copytree(output, other.root)
    save_classes(other, edit.get("classes", CLASSES))
    size = edit.get("size", 128)
    text = other.config.read_text().replace("MIN_SIZE_TEST: 128", f"MIN_SIZE_TEST: {size}")
    other.config.write_text(text)
    code, _, errors = predicted(capsys, output, pictures, "--with", other.root)
    assert code == 2
    assert re.search(f"^error: {other.root}: .*{message}", errors)


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
    assert command._expand([f"{pictures}/*.png", files[1], str(pictures)]) == files


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
