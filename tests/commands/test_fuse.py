import json

import pytest
import runs
import torch
import yaml
from catalogs import restored_catalogs
from detectron2.modeling import build_model

from d2_ssod.artifacts import AtomicCheckpointer, RunFolder, save_classes
from d2_ssod.commands import main
from d2_ssod.demo import digit_scenes


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of random models, and one that has not come so far."""
    root = tmp_path_factory.mktemp("runs")
    source = digit_scenes.generate(root, sizes={"labeled": 1, "unlabeled": 1, "test": 3})
    classes = json.loads(digit_scenes.annotation_file(source, "test").read_text())["categories"]
    for number in range(3):
        folder = RunFolder(root / f"seed_{number}")
        cfg = runs.bare_config(folder.root)
        cfg.merge_from_file(str(runs.CONFIG_FILE))
        cfg.merge_from_list(["SSOD.NUM_PHASES", 0, "MODEL.DEVICE", "cpu"])
        cfg.DATASETS.TEST = ["fuse_test"]
        images = str(digit_scenes.image_folder(source, "test"))
        file = str(digit_scenes.annotation_file(source, "test"))
        cfg.SSOD.REGISTER = [{"NAME": "fuse_test", "JSON": file, "IMAGES": images}]
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        folder.phase(0).folder.mkdir(parents=True)
        if number < 2:
            torch.manual_seed(number)
            checkpointer = AtomicCheckpointer(build_model(cfg), str(folder.phase(0).folder))
            checkpointer.save("model_final")
        folder.config.write_text(cfg.dump())
        save_classes(folder, [each["name"] for each in classes])
    return [root / f"seed_{number}" for number in range(3)]


def fused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught, restored_catalogs():
        main(["fuse", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_each_run_and_all_together_are_evaluated(folders, tmp_path, capsys):
    code, text, _ = fused(capsys, *folders[:2], "--json", tmp_path / "found.json")
    assert code == 0
    found = json.loads((tmp_path / "found.json").read_text())["fuse_test"]
    names = [*(f"{folder}, phase 0" for folder in folders[:2]), "all, fused"]
    assert list(found) == names
    assert len({metrics["AP50"] for metrics in found.values()}) == 3
    rows = text.splitlines()[2:]
    assert [row.startswith(name) for row, name in zip(rows, names, strict=True)] == [True] * 3
    assert f"{found['all, fused']['AP50']:.1f}" in rows[-1]


def test_one_run_is_not_enough(folders, capsys):
    code, _, errors = fused(capsys, folders[0])
    assert code == 2
    assert "one OUTPUT_DIR is given; name two or more" in errors


def test_a_run_without_a_model_is_named(folders, capsys):
    code, _, errors = fused(capsys, *folders)
    assert code == 2
    assert f"{folders[2]}: no phase has been trained to its end" in errors


def test_there_must_be_something_to_judge_by(folders, capsys):
    config = RunFolder(folders[0]).config
    text = config.read_text()
    content = yaml.safe_load(text)
    content["DATASETS"]["TEST"] = []
    try:
        config.write_text(yaml.safe_dump(content))
        code, _, errors = fused(capsys, *folders[:2])
    finally:
        config.write_text(text)
    assert code == 2
    assert f"{folders[0]}: DATASETS.TEST names no data set to judge by" in errors
