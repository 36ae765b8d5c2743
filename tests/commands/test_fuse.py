import json
import re
import shutil
from pathlib import Path

import pytest
import runs
import torch
from catalogs import restored_catalogs
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from d2_ssod.artifacts import AtomicCheckpointer, RunFolder, save_classes
from d2_ssod.commands import fuse, main
from d2_ssod.demo import digit_scenes
from d2_ssod.json_files import read_json, write_json


def make_run(root, name, *, classes, test_sets, seed=None, train=(), phases=0):
    """A run whose models are random: of phase 0, and with a seed."""
    folder = RunFolder(root / name)
    cfg = runs.bare_config(folder.root)
    cfg.merge_from_file(str(runs.CONFIG_FILE))
    cfg.merge_from_list(["SSOD.NUM_PHASES", phases, "MODEL.DEVICE", "cpu"])
    cfg.DATASETS.VAL, cfg.DATASETS.TEST, cfg.DATASETS.TRAIN = test_sets[1:], test_sets[:1], train
    images = str(root / "test")
    cfg.SSOD.REGISTER = [
        *({"NAME": s, "JSON": str(root / f"{s}.json"), "IMAGES": images} for s in ("one", "two")),
        {"NAME": "unlabeled", "IMAGES": str(root / "gone")},
    ]
    cfg.SSOD.ENSEMBLE.WEIGHTS = [9.0, 1.0][: phases + 1]
    cfg.SSOD.ENSEMBLE.IOU_THRESH = 0.9 if phases else 0.6
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    folder.phase(0).folder.mkdir(parents=True)
    if seed is not None:
        torch.manual_seed(seed)
        checkpointer = AtomicCheckpointer(build_model(cfg), str(folder.phase(0).folder))
        checkpointer.save("model_final")
    folder.config.write_text(cfg.dump())
    save_classes(folder, classes)
    return folder.root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Test images, annotated twice, and runs beside them."""
    root = tmp_path_factory.mktemp("runs")
    source = digit_scenes.generate(root / "scenes", sizes={"labeled": 1, "unlabeled": 1, "test": 3})
    content = json.loads(digit_scenes.annotation_file(source, "test").read_text())
    (root / "test").symlink_to(digit_scenes.image_folder(source, "test"))
    write_json(root / "one.json", content)
    write_json(root / "two.json", {**content, "annotations": content["annotations"][:3]})
    classes = [each["name"] for each in content["categories"]]
    both = ["one", "two"]
    make_run(root, "a", classes=classes, test_sets=both, seed=1)
    make_run(root, "b", classes=classes, test_sets=both, seed=2, phases=1)
    make_run(root, "c", classes=classes, test_sets=both, seed=3)
    make_run(root, "unfinished", classes=classes, test_sets=both)
    make_run(root, "blind", classes=classes, test_sets=[], seed=1)
    make_run(root, "spoiled", classes=classes, test_sets=[], train=["one"], seed=4)
    make_run(root, "wrong", classes=classes[::-1], test_sets=["one"], seed=1)
    make_run(root, "also_wrong", classes=classes[::-1], test_sets=["one"], seed=2)
    make_run(root, "unknown", classes=classes, test_sets=["three"], seed=2)
    return root


def fused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught, restored_catalogs():
        main(["fuse", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


class Knowing(nn.Module):
    """A detector that finds all objects of some classes, as they are in a file."""

    def __init__(self, content, classes):
        super().__init__()
        self.content, self.classes = content, classes

    def forward(self, inputs):
        return [{"instances": self._found(image)} for image in inputs]

    def _found(self, image):
        names = {image["id"]: Path(image["file_name"]).name for image in self.content["images"]}
        own = [
            annotation
            for annotation in self.content["annotations"]
            if names[annotation["image_id"]] == Path(image["file_name"]).name
            and annotation["category_id"] - 1 in self.classes
        ]
        found = Instances((image["height"], image["width"]))
        boxes = torch.tensor([annotation["bbox"] for annotation in own]).reshape(-1, 4)
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        found.scores = torch.full((len(own),), 0.9)
        found.pred_classes = torch.tensor([each["category_id"] - 1 for each in own]).long()
        return found


def test_each_run_and_all_together_are_evaluated(root, tmp_path, capsys, monkeypatch):
    content = read_json(root / "one.json")
    known = sorted({each["category_id"] - 1 for each in content["annotations"]})
    first, second, *_ = known
    finds = {"a": {first}, "b": {first, second}, "c": set(known) - {first}}
    monkeypatch.setattr(
        fuse,
        "load_phase_model",
        lambda cfg, phase: Knowing(content, finds[Path(cfg.OUTPUT_DIR).name]),
    )
    folders = [root / name for name in "abc"]
    code, text, errors = fused(capsys, *folders, "--json", tmp_path / "found.json")
    assert code == 0
    found = read_json(tmp_path / "found.json")
    assert list(found) == ["two", "one"]  # validation images first
    names = [*(f"{folder}, phase 0" for folder in folders), "these, fused"]
    expected = [100 * len(finds[name]) / len(known) for name in "abc"] + [100]
    assert [found["one"][name]["AP50"] for name in names] == pytest.approx(expected)
    assert found["one"] != found["two"]
    rows = text.splitlines()[-4:]
    assert all(row.startswith(name) for row, name in zip(rows, names, strict=True))
    assert "100.0" in rows[-1]
    assert "b: takes phase 0, the last that was trained to its end, of phases 0..1" in errors


def test_fused_runs_count_alike(root, capsys, monkeypatch):
    asked = []

    def evaluate_rows(models, *, fusion, **how):
        asked.append(fusion)
        return {row: {"AP": 1.0} for row in how["rows"]}

    monkeypatch.setattr(fuse, "evaluate_rows", evaluate_rows)
    code, _, _ = fused(capsys, root / "b", root / "a")
    assert code == 0
    assert [fusion.weights for fusion in asked] == [None, None]
    assert {fusion.iou_thresh for fusion in asked} == {0.9}  # of the first run


def test_models_of_all_phases_are_fused_on_request(root, tmp_path, capsys, monkeypatch):
    for name in "ab":
        both = RunFolder(tmp_path / name)
        shutil.copytree(root / "b", both.root)
        shutil.copytree(both.phase(0).folder, both.phase(1).folder)
    numbers = []

    def evaluate_rows(models, *, rows, **how):
        numbers.append((len(models), {row: list(of_row) for row, of_row in rows.items()}))
        return {row: {"AP": 1.0} for row in rows}

    monkeypatch.setattr(fuse, "evaluate_rows", evaluate_rows)
    fused(capsys, tmp_path / "a", tmp_path / "b", "--ensemble")
    a, b = (f"{tmp_path / name}, phase 1" for name in "ab")
    rows = {a: [0], b: [1], "these, fused": [0, 1], "all phases of all, fused": [0, 1, 2, 3]}
    assert numbers == [(4, rows)] * 2


def test_a_run_that_has_learned_test_images_is_said(root, capsys):
    code, _, errors = fused(capsys, root / "a", root / "spoiled")
    assert code == 0
    assert f"3 of 3 test images are labeled (of {root}/spoiled) images too" in errors


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a", "one OUTPUT_DIR is given; name two or more"),
        ("a unfinished", "unfinished: no phase has been trained to its end"),
        ("blind a", "blind: neither DATASETS.VAL nor DATASETS.TEST names a data set"),
        ("wrong also_wrong", r"DATASETS.TEST \(one\): the classes are not those of the models"),
        ("unknown a", "DATASETS.TEST: no data set is registered as 'three'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_line(root, capsys, names, message):
    code, _, errors = fused(capsys, *(root / name for name in names.split()))
    assert code == 2
    assert re.search(f"^error: .*{message}", errors, re.MULTILINE)


def test_a_test_picture_that_is_gone_is_named(root, capsys):
    picture = next((root / "test").iterdir())
    content = picture.read_bytes()
    picture.unlink()
    try:
        code, _, errors = fused(capsys, root / "a", root / "c")
    finally:
        picture.write_bytes(content)
    assert code == 2
    assert picture.name in errors


@pytest.mark.parametrize(
    "content",
    [{"images": [], "annotations": []}, {}, {"compilerOptions": {"strict": True}}, {"a": {}}],
)
def test_files_that_are_no_metrics_are_not_overwritten_with_such(tmp_path, capsys, content):
    labels = write_json(tmp_path / "labels.json", content)
    code, _, errors = fused(capsys, "one", "two", "--json", labels)
    assert code == 2
    assert "labels.json would overwrite a file that is none of this command's" in errors
    assert read_json(labels) == content
