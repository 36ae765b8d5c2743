"""The command that writes a report, where data have moved or arguments cannot be."""

import errno
import html
import json
import os
from pathlib import Path

import pytest
from made_run import make_run
from pictures import save_picture

from d2_ssod.artifacts import RunFolder
from d2_ssod.commands import main, report


@pytest.fixture
def cfg(tmp_path):
    return make_run(tmp_path)


def register(cfg, entries):
    """Give a run other data sets than those that it was made with."""
    cfg.SSOD.REGISTER = entries
    RunFolder(cfg.OUTPUT_DIR).config.write_text(cfg.dump())


def reported(capsys, cfg, *arguments):
    """The exit code, the page, and what is said to be wrong."""
    with pytest.raises(SystemExit) as caught:
        main(["report", cfg.OUTPUT_DIR, *map(str, arguments)])
    path = RunFolder(cfg.OUTPUT_DIR).report
    page = html.unescape(path.read_text(encoding="utf-8")) if path.exists() else ""
    return caught.value.code, page, capsys.readouterr().err


def test_data_that_are_gone_are_said_on_the_page(cfg, tmp_path, capsys):
    labeled, unlabeled = cfg.SSOD.REGISTER
    moved = {"NAME": f"{unlabeled['NAME']}_moved", "IMAGES": str(tmp_path / "gone")}
    cfg.DATASETS.UNLABELED = (moved["NAME"],)
    test = {**labeled, "NAME": f"{labeled['NAME']}_test", "JSON": str(tmp_path / "gone.json")}
    late = {**labeled, "NAME": f"{labeled['NAME']}_late"}  # after what is gone
    cfg.DATASETS.TRAIN = (late["NAME"],)
    register(cfg, [moved, test, late])
    code, page, _ = reported(capsys, cfg)
    assert code == 0
    assert f"<li>SSOD.REGISTER[0].IMAGES: {tmp_path}/gone is not a folder" in page
    assert f"<li>SSOD.REGISTER[1].JSON: {tmp_path}/gone.json is not a file" in page
    assert "dog 0.90, labeled cat" in page  # on the labeled images, which are there
    code, _, errors = reported(capsys, cfg, "--yolo", tmp_path / "yolo")
    assert code == 2
    assert f"no pseudo-labels to write (SSOD.REGISTER[0].IMAGES: {tmp_path}/gone" in errors


def test_of_data_that_are_gone_altogether_there_is_a_report(cfg, tmp_path, capsys):
    names = [f"{entry['NAME']}_elsewhere" for entry in cfg.SSOD.REGISTER]
    cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED = names[:1], names[1:]
    cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH = names[0]
    register(cfg, [{"NAME": name, "IMAGES": "/nowhere"} for name in names])
    code, page, _ = reported(capsys, cfg)
    assert code == 0
    assert page.count("/nowhere is not a folder") == 2
    assert "phases 0~2 together" in page


def test_it_is_said_where_relative_paths_were_looked_for(cfg, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    json_file = {"NAME": "relative_json", "JSON": "gone/a.json", "IMAGES": "data"}
    folder = {**json_file, "NAME": "relative_folder", "JSON": "run/config.yaml", "IMAGES": "gone"}
    images = {"NAME": "relative_images", "IMAGES": ["data", "gone"]}
    absolute = {"NAME": "absolute_images", "IMAGES": "/nowhere"}
    register(cfg, [json_file, folder, images, absolute])
    _, page, _ = reported(capsys, cfg)
    place = f"(looked for in {tmp_path}; relative paths count from where the command is run)"
    assert f"[0].JSON: gone/a.json is not a file {place}; correct the path" in page
    assert f"[1].IMAGES: gone is not a folder {place}; correct the path" in page
    assert (
        f"gone is not a folder, a picture or a text file that lists some {place}; correct" in page
    )
    assert "[3].IMAGES: /nowhere is not a folder, a picture or a text file that lists some;" in page


def test_pseudo_labels_lie_as_the_images_do(cfg, tmp_path, capsys):
    """Also where the other image of the name has no labels: its folder has it all the same."""
    labeled, unlabeled = cfg.SSOD.REGISTER
    folder = tmp_path / "data" / "unlabeled"
    save_picture(folder / "z" / "1.png", 64, 64)
    entry = {**unlabeled, "NAME": f"{unlabeled['NAME']}_folders"}
    cfg.DATASETS.UNLABELED = (entry["NAME"],)
    register(cfg, [labeled, entry])
    path = RunFolder(cfg.OUTPUT_DIR).phase(2).pseudo_labels
    labels = json.loads(path.read_text())
    (folder / "a").mkdir()
    for image in labels["images"]:
        moved = folder / "a" / image["file_name"].rpartition("/")[2]
        Path(image["file_name"]).rename(moved)
        image["file_name"] = str(moved)
    path.write_text(json.dumps(labels))
    assert reported(capsys, cfg, "--yolo", tmp_path / "yolo")[0] == 0
    files = {str(p.relative_to(tmp_path / "yolo")) for p in (tmp_path / "yolo").rglob("*.txt")}
    assert "labels/a/1.txt" in files
    assert files == {f"labels/a/{Path(i['file_name']).stem}.txt" for i in labels["images"]}


def test_labels_of_a_run_that_may_only_be_read_can_be_had(cfg, tmp_path, capsys, monkeypatch):
    def refuse(cfg, **keys):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "report.html")

    monkeypatch.setattr(report, "write_report", refuse)
    code, _, errors = reported(capsys, cfg, "--yolo", tmp_path / "yolo")
    assert code == 2
    assert "error: report.html: Permission denied; " in errors
    assert (tmp_path / "yolo" / "data.yaml").is_file()
    monkeypatch.setattr(report, "write_report", None)  # would fail if called
    code, _, errors = reported(capsys, cfg, "--yolo", tmp_path / "yolo")
    assert code == 2
    assert "data.yaml exists, and may have somebody's labels" in errors
    code, _, errors = reported(capsys, cfg, "--yolo", tmp_path / "yolo" / "data.yaml")
    assert code == 2
    assert "data.yaml is a file; name a folder" in errors


def test_a_number_of_images_that_cannot_be_is_refused(cfg, capsys):
    for value in ("-5", "1.5", "many"):
        code, page, errors = reported(capsys, cfg, "--images", value)
        assert (code, page) == (2, "")
        assert f"argument --images: '{value}' is not a whole number, 0 or more" in errors
    assert reported(capsys, cfg, "--images", 0)[0] == 0
    queue = RunFolder(cfg.OUTPUT_DIR).review / "queue.json"
    assert json.loads(queue.read_text())["images"] == []


def test_data_that_are_gone_are_not_why_there_are_no_labels_yet(cfg, tmp_path, capsys):
    labeled, unlabeled = cfg.SSOD.REGISTER
    gone = {"NAME": f"{unlabeled['NAME']}_gone", "IMAGES": str(tmp_path / "gone")}
    register(cfg, [labeled, unlabeled, gone])
    for phase in (1, 2):
        RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels.unlink()
    _, _, errors = reported(capsys, cfg, "--yolo", tmp_path / "yolo")
    assert "no pseudo-labels to write (no phase has any yet)" in errors
