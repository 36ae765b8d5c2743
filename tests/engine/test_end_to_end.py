"""The command as a user runs it, on a dozen images and for a few iterations."""

import itertools
import json
import math
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import runs
import torch
from runs import (
    PHASE_LENGTHS,
    SIZES,
    UNLABELED,
    log_of,
    read,
    run_command,
    run_here,
    summary_of,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d2_ssod.artifacts import RunFolder, digest_of_file, read_history
from d2_ssod.demo import digit_scenes
from d2_ssod.engine.labeling import predicting
from d2_ssod.engine.training import phase_trainer
from d2_ssod.json_files import write_json

USER_ERROR = 2

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def finished_run(data, tmp_path_factory):
    """The output folder of a two-phase run; not to be changed."""
    output = tmp_path_factory.mktemp("run") / "output"
    run_command(runs.arguments(data, output, SSOD__CHECK_LABELED=True))
    return output


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "output")


def cut_back_to_phase_0(output):
    """Leave what an interruption right after the last iteration of phase 0 leaves."""
    for phase in (1, 2):
        shutil.rmtree(output / f"phase_{phase}")
    (output / "phase_0" / "predictions.json").unlink()
    (output / "summary.json").unlink()


# A whole run


def test_run_writes_the_files_of_the_contract(finished_run):
    names = {"config.yaml", "log.txt", "summary.json"}
    assert names <= {path.name for path in finished_run.iterdir()}
    for phase in range(3):
        folder = finished_run / f"phase_{phase}"
        expected = {"model_final.pth", "last_checkpoint", "metrics.json"}
        assert list(folder.glob("events.out.tfevents.*"))
        if phase < 2:
            expected |= {"predictions.json", "predictions_source.json"}
        if phase > 0:
            expected |= {"pseudo_labels.json", "manifest.json"}
        if phase == 2:
            expected.add("labeled_predictions.json")
        assert expected <= {path.name for path in folder.iterdir()}
    assert not list(finished_run.rglob("*.tmp"))


def test_history_tells_what_was_done(finished_run):
    events = read_history(RunFolder(finished_run))
    done = [(event["event"], event.get("phase"), event.get("data")) for event in events]
    assert [step for step in done if step[0] != "guard"] == [
        ("started", None, None),
        ("trained", 0, None),
        ("predicted", 0, "unlabeled"),
        ("labeled", 1, None),
        ("trained", 1, None),
        ("predicted", 1, "unlabeled"),
        ("labeled", 2, None),
        ("trained", 2, None),
        ("predicted", 2, "labeled"),
        ("evaluated", None, "tiny_test"),
    ]
    trained = [event for event in events if event["event"] == "trained"]
    assert [event["iterations"] for event in trained] == runs.PHASE_LENGTHS
    assert all(event["images_per_batch"] == 4 and event["ended"] for event in trained)


def test_predictions_are_coco_results(finished_run):
    results = read(finished_run / "phase_0" / "predictions.json")
    assert results
    for result in results:
        assert set(result) == {"image_id", "category_id", "bbox", "score"}
        assert 1 <= result["image_id"] <= SIZES["unlabeled"]
        assert result["category_id"] in range(1, 6)
        assert len(result["bbox"]) == 4
        assert 0.05 <= result["score"] <= 1


def test_pseudo_labels_are_coco_instances(finished_run, data):
    for phase in (1, 2):
        content = read(finished_run / f"phase_{phase}" / "pseudo_labels.json")
        assert [c["name"] for c in content["categories"]] == list("01234")
        images = {image["id"] for image in content["images"]}
        assert 0 < len(images) <= SIZES["unlabeled"]
        assert {a["image_id"] for a in content["annotations"]} == images
        assert all(0 < a["score"] <= 1 and a["bbox"][2] > 0 for a in content["annotations"])
        assert all(image["file_name"].startswith(data[1]["IMAGES"]) for image in content["images"])


def test_manifest_tells_sources_thresholds_and_selection(finished_run):
    for phase in (1, 2):
        manifest = read(finished_run / f"phase_{phase}" / "manifest.json")
        models = [f"phase_{source}/model_final.pth" for source in range(phase)]
        assert list(manifest["sources"]) == models
        for source in manifest["sources"].values():
            assert list(source) == list("01234")
            assert all(0.1 <= c["threshold"] <= 1 for c in source.values())
            assert all(
                {"target_per_image", "achieved_per_image"} <= set(c) for c in source.values()
            )
        selection = manifest["selection"]
        assert selection["fraction"] == phase / 2
        counts = [selection[f"images_{part}"] for part in ("kept", "left_out", "empty")]
        assert sum(counts) == selection["images"] == SIZES["unlabeled"]
        assert counts[0] == math.floor(phase / 2 * (counts[0] + counts[1]))
        labels = read(finished_run / f"phase_{phase}" / "pseudo_labels.json")
        assert manifest["boxes"]["kept"] == len(labels["annotations"])


def test_summary_has_the_keys_of_the_contract(finished_run):
    summary = summary_of(finished_run)
    assert set(summary) == {"dataset", "phases", "ensembles"}
    assert summary["dataset"] == runs.TEST
    assert [phase["phase"] for phase in summary["phases"]] == [0, 1, 2]
    assert set(summary["ensembles"]) == {"1~N", "0~N"}
    for phase in summary["phases"]:
        keys = {"phase", "labeled_images", "pseudo_images", "pseudo_boxes", "metrics"}
        assert set(phase) == keys
        assert phase["labeled_images"] == SIZES["labeled"]
    for metrics in [p["metrics"] for p in summary["phases"]] + list(summary["ensembles"].values()):
        for name in ("AP", "AP50", "AP50/easy", "AP50/difficult"):
            assert 0 <= metrics[name] <= 100
    assert summary["phases"][0]["pseudo_images"] == summary["phases"][0]["pseudo_boxes"] == 0


def test_summary_counts_what_was_trained_on(finished_run):
    for phase in (1, 2):
        labels = read(finished_run / f"phase_{phase}" / "pseudo_labels.json")
        entry = summary_of(finished_run)["phases"][phase]
        assert entry["pseudo_images"] == len(labels["images"]) > 0
        assert entry["pseudo_boxes"] == len(labels["annotations"])


def test_checkpoints_hold_plain_values_only(finished_run):
    paths = list(finished_run.glob("phase_*/model_*.pth"))
    assert len(paths) == 3
    for path in paths:
        assert "model" in torch.load(path, weights_only=True)


def test_phases_start_afresh_and_differ(finished_run):
    weights = [
        torch.load(finished_run / f"phase_{phase}" / "model_final.pth", weights_only=True)["model"]
        for phase in range(3)
    ]
    for one, other in itertools.combinations(weights, 2):
        assert one.keys() == other.keys()
        key = "roi_heads.box_predictor.cls_score.weight"
        assert not torch.equal(one[key], other[key])


def test_metrics_files_have_losses_and_weights(finished_run):
    for phase in range(3):
        text = (finished_run / f"phase_{phase}" / "metrics.json").read_text()
        last = json.loads(text.splitlines()[-1])
        assert last["iteration"] == PHASE_LENGTHS[phase] - 1
        assert {"loss_cls", "loss_box_reg", "loss_similarity", "lr"} <= set(last)
        for quantity in ("weights", "max_iou", "dissimilarity"):
            # Phase 0 has no pseudo-labeled images, whose RoIs are weighted.
            assert (f"roi_weighting/{quantity}_mean" in last) == (phase > 0)


def test_tensorboard_shows_pseudo_labels_and_results(finished_run):
    def tags_of(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        return events, events.Tags()

    _, of_phase_0 = tags_of(finished_run / "phase_0")
    assert of_phase_0["images"] == []
    events, of_phase_2 = tags_of(finished_run / "phase_2")
    assert of_phase_2["images"] == [f"pseudo_labels/{number}" for number in range(4)]
    assert events.Images("pseudo_labels/0")[0].width == 128
    events, of_run = tags_of(finished_run)
    assert {"tiny_test/AP", "tiny_test/AP50"} <= set(of_run["scalars"])
    values = [event.value for event in events.Scalars("tiny_test/AP50")]
    expected = [phase["metrics"]["AP50"] for phase in summary_of(finished_run)["phases"]]
    assert values == pytest.approx(expected)
    assert of_run["tensors"] == ["results/tiny_test/text_summary"]


def test_first_screen_is_for_people(data, tmp_path):
    """Versions, data and phases in a dozen lines; environment and config are in the file only."""
    keys = {"SSOD__NUM_PHASES": 0, "SSOD__SCHEDULE__MAX_ITER": [2]}
    result = run_command(runs.arguments(data, tmp_path / "output", **keys))
    before, _ = result.stdout.split("Phase 0 of 0..0: 12 labeled images, 2 iterations of 4 images")
    assert len(before.splitlines()) <= 12
    for part in ("d2_ssod 0", "Detectron2 0", f"torch {torch.__version__}", "5 classes: 0, 1, 2"):
        assert part in before
    assert "12 images" in before
    log = log_of(tmp_path / "output")
    for part in ("PIXEL_MEAN", "sys.platform", "Command line arguments", "GeneralizedRCNN("):
        assert part in log
        assert part not in result.stdout
    assert "not built correctly" not in log
    assert "\x1b" not in result.stdout + log


def test_log_says_what_was_chosen(finished_run):
    log = log_of(finished_run)
    for phase in (1, 2):
        assert re.search(rf"Phase {phase}: Model 0: score thresholds 0 0\.\d\d", log)
        assert re.search(rf"Phase {phase}: Selected the easiest \d+ of 12 images", log)
    assert "Phase 2: Consensus of 2 models" in log
    assert re.search(r"Phase 1 of 0..2: 12 labeled \+ \d+ pseudo-labeled images, 6 iterations", log)
    assert "ensemble 0~2" in log


def test_same_seed_gives_the_same_summary(finished_run, data, tmp_path):
    output = tmp_path / "again"
    run_here(runs.arguments(data, output))
    assert (output / "summary.json").read_bytes() == (finished_run / "summary.json").read_bytes()
    for name in ("predictions.json", "model_final.pth"):
        first, second = (folder / "phase_1" / name for folder in (output, finished_run))
        if name.endswith(".json"):
            assert first.read_bytes() == second.read_bytes()
        else:
            models = [torch.load(path, weights_only=True)["model"] for path in (first, second)]
            assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_other_seed_gives_other_models(finished_run, data, tmp_path):
    output = tmp_path / "other"
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [PHASE_LENGTHS[0], 1], "SEED": 2}
    run_here(runs.arguments(data, output, **keys))
    first, second = (folder / "phase_0" / "predictions.json" for folder in (output, finished_run))
    assert first.read_bytes() != second.read_bytes()


# Evaluation, interruptions, corrections


def test_eval_only_reproduces_the_summary(copied_run, data):
    expected = summary_of(copied_run)
    (copied_run / "summary.json").unlink()
    run_here(runs.arguments(data, copied_run, "--eval-only"))
    assert summary_of(copied_run) == expected


def test_eval_only_follows_the_config(copied_run, data):
    expected = summary_of(copied_run)
    weights = {"SSOD__ENSEMBLE__WEIGHTS": [1.0, 0.1, 0.1], "SSOD__ENSEMBLE__IOU_THRESH": 0.1}
    run_here(runs.arguments(data, copied_run, "--eval-only", **weights))
    found = summary_of(copied_run)
    assert found["phases"] == expected["phases"]
    assert found["ensembles"]["0~N"] != expected["ensembles"]["0~N"]


def test_the_report_of_an_evaluation_says_how_the_run_was_trained(copied_run, data):
    """By its own config, whatever keys of a training the command line has or lacks."""
    keys = {
        "SSOD__REPORT": True,
        "SOLVER__WEIGHT_DECAY": 0.125,
        "SSOD__ENSEMBLE__IOU_THRESH": 0.375,
    }
    run_here(runs.arguments(data, copied_run, "--eval-only", **keys))
    page = (copied_run / "report.html").read_text()
    assert "WEIGHT_DECAY" not in page
    assert re.search(r"SSOD\.ENSEMBLE\.IOU_THRESH\D*0\.375\D", page)


def test_eval_only_on_other_images_keeps_the_summary(copied_run, data):
    expected = summary_of(copied_run)
    (entry,) = [entry for entry in data if entry["NAME"] == runs.TEST]
    more = [*data, {**entry, "NAME": "tiny_others"}]
    run_here(runs.arguments(more, copied_run, "--eval-only", DATASETS__TEST=["tiny_others"]))
    assert summary_of(copied_run) == expected
    other = runs.read(copied_run / "summary_tiny_others.json")
    assert other["dataset"] == "tiny_others"
    assert other["phases"] == expected["phases"]


def test_eval_only_with_another_model_ends_with_one_line(copied_run, data, capfd):
    before = summary_of(copied_run)
    argv = runs.arguments(
        data, copied_run, "--eval-only", MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS=[[1.0]]
    )
    stderr = error_of(capfd, argv)
    model = "phase_0/model_final.pth does not fit"
    assert_one_error_line(stderr, model, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS was")
    assert summary_of(copied_run) == before


def test_validation_images_are_evaluated_within_phases(finished_run, data, tmp_path):
    keys = {"DATASETS__VAL": [runs.TEST], "TEST__EVAL_PERIOD": 3, "SSOD__NUM_PHASES": 0}
    argv = runs.arguments(data, tmp_path, **keys, SSOD__SCHEDULE__MAX_ITER=PHASE_LENGTHS[:1])
    run_here(argv)
    text = (tmp_path / "phase_0" / "metrics.json").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    assert any(f"{runs.TEST}/AP50" in metrics for metrics in found)
    # It changes nothing: the model is the one of a run without.
    weights = [
        torch.load(folder / "phase_0" / "model_final.pth", weights_only=True)["model"]
        for folder in (tmp_path, finished_run)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_validation_images_that_are_named_later_are_evaluated_on_all_phases(copied_run, data):
    run_here(runs.arguments(data, copied_run, "--resume", DATASETS__VAL=[runs.TEST]))
    assert all((copied_run / f"phase_{n}" / "validation.json").exists() for n in range(3))
    assert (copied_run / "model_best.pth").exists()


def test_the_best_phase_and_the_truth_about_labels_are_in_the_summary(data, tmp_path):
    truth = [{**entry, "NAME": "tiny_truth"} for entry in data if entry["NAME"] == UNLABELED]
    root = Path(truth[0]["IMAGES"]).parent
    truth[0]["JSON"] = str(digit_scenes.annotation_file(root, digit_scenes.HIDDEN_TRUTH))
    keys = {
        "DATASETS__VAL": [runs.TEST],
        "SSOD__DIAGNOSTICS__UNLABELED_TRUTH": "tiny_truth",
        "SSOD__NUM_PHASES": 1,
        "SSOD__SCHEDULE__MAX_ITER": PHASE_LENGTHS[:2],
        "SSOD__SELECTION": "class_balanced",
    }
    run_here(runs.arguments([*data, *truth], tmp_path, **keys))
    summary = summary_of(tmp_path)
    best = summary["best_phase_by_validation"]
    aps = [read(tmp_path / f"phase_{n}" / "validation.json")["metrics"]["AP"] for n in (0, 1)]
    assert aps == [phase["metrics"]["AP"] for phase in summary["phases"]]
    assert best == aps.index(max(aps))
    of_ensemble = read(tmp_path / "validation.json")["ensembles"]["0~N"]["AP"]
    assert of_ensemble == summary["ensembles"]["0~N"]["AP"]
    together = [0, 1] if of_ensemble > max(aps) else [best]
    assert summary["best_phases_by_validation"] == together
    handed_over = (tmp_path / "model_best.pth").read_bytes()
    assert handed_over == (tmp_path / f"phase_{best}" / "model_final.pth").read_bytes()
    quality = read(tmp_path / "phase_1" / "manifest.json")["quality"]
    assert list(quality) == ["model 0", "consensus", "selected"]
    assert summary["label_quality"]["1"] == quality["selected"]


def test_a_model_from_elsewhere_can_be_that_of_phase_0(finished_run, data, tmp_path, capfd):
    start = finished_run / "phase_0" / "model_final.pth"
    run_here(runs.arguments(data, tmp_path, SSOD__START__PHASE_0=str(start)))
    assert f"Phase 0 is {start}" in log_of(tmp_path)
    assert summary_of(tmp_path) == summary_of(finished_run)
    other = finished_run / "phase_1" / "model_final.pth"
    argv = runs.arguments(data, tmp_path, "--resume", SSOD__START__PHASE_0=str(other))
    assert_one_error_line(error_of(capfd, argv), "SSOD.START.PHASE_0", f"taken from {start}")


def test_labels_from_elsewhere_can_be_those_of_phase_1(finished_run, data, tmp_path):
    start = finished_run / "phase_0" / "model_final.pth"
    labels = finished_run / "phase_1" / "pseudo_labels.json"
    keys = {"SSOD__START__PHASE_0": str(start), "SSOD__PSEUDO_LABEL__FROM": str(labels)}
    run_here(runs.arguments(data, tmp_path, **keys))
    assert not (tmp_path / "phase_1" / "manifest.json").exists()  # nothing was selected
    assert summary_of(tmp_path) == summary_of(finished_run)


def test_labels_from_elsewhere_that_do_not_fit_end_with_one_line(
    finished_run, data, tmp_path, capfd
):
    labels = read(finished_run / "phase_1" / "pseudo_labels.json")
    labels["images"][0]["file_name"] = "unknown.png"
    path = write_json(tmp_path / "labels.json", labels)
    argv = runs.arguments(data, tmp_path / "output", SSOD__PSEUDO_LABEL__FROM=str(path))
    assert_one_error_line(error_of(capfd, argv), "labels.json", "unknown.png")
    assert not (tmp_path / "output" / "phase_0").exists()


@pytest.mark.parametrize("name", ["no_such.pth", "config.yaml"])
def test_a_start_that_is_no_model_ends_with_one_line(finished_run, data, tmp_path, capfd, name):
    argv = runs.arguments(data, tmp_path, SSOD__START__PHASE_0=str(finished_run / name))
    assert_one_error_line(error_of(capfd, argv), name)
    assert not (tmp_path / "phase_0").exists()


def test_training_that_diverges_ends_with_one_line(data, tmp_path, capfd):
    argv = runs.arguments(data, tmp_path, SOLVER__BASE_LR=1e9, SOLVER__WARMUP_ITERS=0)
    assert_one_error_line(error_of(capfd, argv), "phase 0, iteration", "SOLVER.BASE_LR")


def test_mixed_precision_trains_on_the_cpu_too(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [6, 2], "DATASETS__TEST": []}
    run_here(runs.arguments(data, tmp_path, SOLVER__AMP__ENABLED=True, **keys))
    for phase in range(2):
        folder = tmp_path / f"phase_{phase}"
        weights = torch.load(folder / "model_final.pth", weights_only=True)["model"]
        assert {v.dtype for v in weights.values()} <= {torch.float32, torch.int64}
        losses = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        assert losses
        assert all(math.isfinite(row["total_loss"]) for row in losses)


def test_grey_pictures_are_trained_on_with_color_jitter(data, tmp_path):
    keys = {"INPUT__FORMAT": "L", "MODEL__PIXEL_MEAN": [127.5], "MODEL__PIXEL_STD": [64.0]}
    argv = runs.arguments(data, tmp_path, **keys, SSOD__NUM_PHASES=0, SSOD__SCHEDULE__MAX_ITER=[2])
    run_here(argv)
    assert "phases" in summary_of(tmp_path)


def test_names_need_not_be_in_any_encoding(data, tmp_path):
    """In a plain C locale, with a class and a picture whose names are not ASCII."""
    folder = tmp_path / "pictures"
    shutil.copytree(next(e["IMAGES"] for e in data if e["NAME"] == UNLABELED), folder)
    first, second = sorted(folder.iterdir())[:2]
    first.rename(folder / "\u00fcml\u00e4ut.png")
    os.rename(second, os.fsencode(folder) + b"/\xe9.png")
    entries = [{**entry, "NAME": f"odd_{entry['NAME']}"} for entry in data]
    entries[1]["IMAGES"] = str(folder)
    for entry in (entries[0], entries[2]):
        content = runs.read(entry["JSON"])
        content["categories"][0]["name"] = "\u00e9l\u00e9phant"
        entry["JSON"] = str(write_json(tmp_path / f"{entry['NAME']}.json", content))
    names = {
        f"DATASETS__{key}": [entry["NAME"]]
        for key, entry in zip(("TRAIN", "UNLABELED", "TEST"), entries, strict=True)
    }
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [2, 2]}
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    argv = runs.arguments(entries, tmp_path / "output", **names, **keys)
    result = run_command(argv, environment=plain)
    assert "Traceback" not in result.stderr
    log = (tmp_path / "output" / "log.txt").read_text(encoding="utf-8")
    assert "\u00e9l\u00e9phant" in log


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path)])
def test_an_output_folder_that_cannot_be_written_ends_with_one_line(data, tmp_path, capfd, make):
    make(tmp_path / "output")
    stderr = error_of(capfd, runs.arguments(data, tmp_path / "output"))
    assert_one_error_line(stderr, str(tmp_path / "output"))


def test_a_full_disk_ends_with_one_line_and_a_traceback_in_the_log(
    data, tmp_path, capfd, monkeypatch
):
    def fill(*_, **__):
        raise OSError(28, "No space left on device", "model_final.pth")

    monkeypatch.setattr(phase_trainer.PhaseTrainer, "run_step", fill)
    stderr = error_of(capfd, runs.arguments(data, tmp_path / "output"))
    assert_one_error_line(stderr, "model_final.pth: No space left on device", "--resume")
    assert "Traceback" not in stderr
    assert "in fill" in log_of(tmp_path / "output")


def test_without_test_images_there_is_no_summary(data, tmp_path):
    keys = {"DATASETS__TEST": [], "SSOD__NUM_PHASES": 0, "SSOD__SCHEDULE__MAX_ITER": [2]}
    run_here(runs.arguments(data, tmp_path, **keys))
    assert (tmp_path / "phase_0" / "model_final.pth").exists()
    assert not (tmp_path / "summary.json").exists()


def test_run_interrupted_between_phases_is_resumed(copied_run, finished_run, data):
    cut_back_to_phase_0(copied_run)
    run_here(runs.arguments(data, copied_run, "--resume"))
    # The models are the same, so what is made of them is.
    for name in ("phase_0/predictions.json", "phase_1/pseudo_labels.json", "phase_1/manifest.json"):
        assert (copied_run / name).read_bytes() == (finished_run / name).read_bytes()
    # And a phase depends on nothing but the files and the seed.
    assert summary_of(copied_run) == summary_of(finished_run)


def test_weights_that_no_phase_starts_from_any_more_may_be_gone(copied_run, data):
    cut_back_to_phase_0(copied_run)
    keys = {
        "SSOD__NUM_PHASES": 1,
        "SSOD__SCHEDULE__MAX_ITER": [24, 6],
        "MODEL__WEIGHTS": "gone.pth",
    }
    run_here(runs.arguments(data, copied_run, "--resume", SSOD__PHASE_INIT="previous", **keys))
    assert (copied_run / "phase_1" / "model_final.pth").exists()


def test_labels_that_were_deleted_are_made_again_of_the_same_models(copied_run, finished_run, data):
    made = Path("phase_1/pseudo_labels.json")
    (copied_run / made).unlink()
    run_here(runs.arguments(data, copied_run, "--resume"))
    assert (copied_run / made).read_bytes() == (finished_run / made).read_bytes()
    assert summary_of(copied_run) == summary_of(finished_run)
    trained = [e for e in read_history(RunFolder(copied_run)) if e["event"] == "trained"]
    assert len(trained) == 3  # as before


@pytest.mark.parametrize("phase", [1, 2])
def test_labels_that_cannot_be_made_as_they_were_are_refused(
    copied_run, data, tmp_path, capfd, phase
):
    made = copied_run / f"phase_{phase}" / "pseudo_labels.json"
    own = tmp_path / "own.json"  # in which a person has said that a picture has no object
    content = read(made)
    made.unlink()
    write_json(own, content | {"images": content["images"][:1], "annotations": []})
    argv = runs.arguments(data, copied_run, "--resume", SSOD__PSEUDO_LABEL__CORRECTED=str(own))
    parts = (f"phase_{phase}/{made.name} has been changed since", "delete model_*.pth beside it")
    assert_one_error_line(error_of(capfd, argv), *parts)


def test_a_run_is_not_gone_on_with_by_other_settings(copied_run, data, capfd):
    (copied_run / "phase_2" / "model_final.pth").unlink()
    files = [copied_run / "config.yaml", *copied_run.glob("phase_*/*.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    argv = runs.arguments(data, copied_run, "--resume", SEED=5, SSOD__AUG__COLOR=0.0)
    stderr = error_of(capfd, argv)
    assert_one_error_line(stderr, "phase 0", "SEED was 1 and is 5", "SSOD.AUG.COLOR was 0.2")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_labels_are_not_mixed_with_those_of_other_settings(copied_run, data, capfd):
    argv = runs.arguments(data, copied_run, "--resume", SSOD__SELECTION="class_balanced")
    part = (
        "phase_1/pseudo_labels.json was made with other settings: SSOD.SELECTION was 'mean_score'"
    )
    assert_one_error_line(error_of(capfd, argv), part)


@pytest.mark.parametrize("flag", ["--resume", "--eval-only"])
def test_models_of_other_classes_are_not_taken_for_these(copied_run, data, capfd, flag):
    classes = copied_run / "classes.json"
    classes.write_text(classes.read_text().replace('"0"', '"zero"'))
    before = classes.read_bytes()
    stderr = error_of(capfd, runs.arguments(data, copied_run, flag))
    assert_one_error_line(stderr, "classes.json", "missing '0', additional 'zero'")
    assert classes.read_bytes() == before


def test_prediction_pass_that_was_interrupted_goes_on_where_it_was(
    copied_run, finished_run, data, monkeypatch
):
    cut_back_to_phase_0(copied_run)
    unlabeled, predicted = SIZES["unlabeled"], []

    class Interrupted(Exception):
        pass

    def interrupted_predict(*args, on_batch, predict=predicting.predict, **keys):
        def keep(predictions):
            on_batch(predictions)
            predicted.extend(predictions)
            if len(predicted) > unlabeled // 2:
                raise Interrupted

        return predict(*args, on_batch=keep, **keys)

    argv = runs.arguments(data, copied_run, "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(predicting, "predict", interrupted_predict)
        with pytest.raises(Interrupted):
            run_here(argv)
    assert unlabeled // 2 < len(predicted) < unlabeled
    assert not (copied_run / "phase_0" / "predictions.json").exists()

    run_here(argv)
    assert f"{len(predicted)} of {unlabeled} images were predicted before" in log_of(copied_run)
    for name in ("phase_0/predictions.json", "phase_1/pseudo_labels.json"):
        assert (copied_run / name).read_bytes() == (finished_run / name).read_bytes()
    assert not (copied_run / "phase_0" / "partial_predictions").exists()


def test_run_without_its_checkpoints_goes_on_after_its_last_phase(copied_run, finished_run, data):
    """As after deleting the big files, or copying only what the phases left."""
    (copied_run / "phase_2" / "model_final.pth").unlink()
    run_here(runs.arguments(data, copied_run, "--resume"))
    log = log_of(copied_run).split("Output:")[-1]
    assert "Phase 2 of 0..2" in log
    assert "Phase 1 of 0..2" not in log
    assert summary_of(copied_run) == summary_of(finished_run)


def test_a_phase_that_is_trained_again_looks_at_the_labeled_images_again(copied_run, data):
    folder = copied_run / "phase_2"
    kept = (folder / "labeled_predictions.json").read_bytes()
    (folder / "labeled_predictions.json").write_text("[]")
    for path in (folder / "model_final.pth", folder / "last_checkpoint"):
        path.unlink()
    run_here(runs.arguments(data, copied_run, "--resume", SSOD__CHECK_LABELED=True))
    assert (folder / "labeled_predictions.json").read_bytes() == kept


def test_a_phase_that_is_trained_again_is_judged_again(copied_run, data):
    argv = runs.arguments(data, copied_run, "--resume", DATASETS__VAL=[runs.TEST])
    run_here(argv)
    files = [copied_run / "phase_2" / "validation.json", copied_run / "validation.json"]
    judged = [read(path) for path in files]
    write_json(files[0], judged[0] | {"metrics": {"AP": 99.0}})
    write_json(files[1], judged[1] | {"ensembles": {"0~N": {"AP": 99.0}}})
    for name in ("model_final.pth", "last_checkpoint"):
        (copied_run / "phase_2" / name).unlink()
    run_here(argv)
    assert [read(path) for path in files] == judged
    run_here([*argv, "INPUT.MIN_SIZE_TEST", "96"])  # another yardstick
    for path, before in zip(files, judged, strict=True):
        assert read(path)["judged_by"] != before["judged_by"]


def test_phase_0_alone_and_then_the_others(data, finished_run, tmp_path):
    alone = {"SSOD__NUM_PHASES": 0, "SSOD__SCHEDULE__MAX_ITER": PHASE_LENGTHS[:1]}
    run_here(runs.arguments(data, tmp_path, **alone))
    summary = summary_of(tmp_path)
    assert [phase["phase"] for phase in summary["phases"]] == [0]
    assert summary["ensembles"] == {}
    assert not (tmp_path / "phase_1").exists()
    run_here(runs.arguments(data, tmp_path, "--resume"))
    assert summary_of(tmp_path) == summary_of(finished_run)


def with_one_more_image(data, folder, name):
    """The same data with a picture between the others, so that the folder counts them anew."""
    shutil.copytree(data[1]["IMAGES"], folder)
    shutil.copy(folder / "00003.png", folder / "00002a.png")
    return [data[0], {"NAME": name, "IMAGES": str(folder)}, data[2]], {
        "DATASETS__UNLABELED": [name]
    }


@pytest.fixture
def predicted(monkeypatch):
    """The unlabeled images that models are run over, one after another."""
    image_ids, predict = [], predicting.predict

    def watched_predict(*args, on_batch=lambda found: None, **keys):
        return predict(*args, on_batch=lambda p: (on_batch(p), image_ids.extend(p)), **keys)

    monkeypatch.setattr(predicting, "predict", watched_predict)
    return image_ids


def test_only_images_that_came_since_the_predictions_are_predicted(
    copied_run, data, tmp_path, predicted
):
    before = read(copied_run / "phase_0" / "predictions.json")
    kept = [copied_run / "phase_0" / f"predictions{end}.json" for end in ("", "_source")]
    contents = [path.read_bytes() for path in kept]
    cut_back_to_phase_0(copied_run)
    for path, content in zip(kept, contents, strict=True):
        path.write_bytes(content)
    more, keys = with_one_more_image(data, tmp_path / "more_images", "tiny_more")
    run_here(runs.arguments(more, copied_run, "--resume", **keys))
    assert "Phase 0: 1 unlabeled images are new to its model" in log_of(copied_run)
    assert predicted[0] == 4  # after 0 to 2
    assert len(predicted) == 1 + 13  # and phase 1's model has seen none
    after = read(copied_run / "phase_0" / "predictions.json")
    renumbered = [{**row, "image_id": row["image_id"] + (row["image_id"] > 3)} for row in before]
    assert [row for row in after if row["image_id"] != 4] == renumbered
    twin = [row for row in after if row["image_id"] == 4]
    same = [{**row, "image_id": 4} for row in after if row["image_id"] == 5]
    assert twin == same
    assert not (copied_run / "phase_0" / "partial_predictions").exists()
    assert len(read(copied_run / "phase_0" / "predictions_source.json")["files"]) == 13


def test_images_that_have_other_ids_now_keep_their_predictions(copied_run, data, predicted):
    path = copied_run / "phase_0" / "predictions.json"
    source = path.with_name("predictions_source.json")
    before, note = read(path), read(source)
    numbers = [*note["image_ids"][1:], note["image_ids"][0]]
    for phase in (1, 2):
        shutil.rmtree(copied_run / f"phase_{phase}")
    # As another order of the folders would have given them.
    of = dict(zip(numbers, note["image_ids"], strict=True))
    was = {now: number for number, now in of.items()}
    path.write_text(json.dumps([{**row, "image_id": was[row["image_id"]]} for row in before]))
    source.write_text(json.dumps({**note, "image_ids": numbers}))
    run_here(runs.arguments(data, copied_run, "--resume"))
    assert read(path) == before
    assert read(source) == note
    assert len(predicted) == 12  # by phase 1's model alone


def test_images_that_came_after_all_labels_are_said_not_to_be_used(copied_run, data, tmp_path):
    more, keys = with_one_more_image(data, tmp_path / "more_images", "tiny_late")
    run_here(runs.arguments(more, copied_run, "--resume", **keys))
    assert "1 unlabeled images were added, but all phases have" in log_of(copied_run)


def test_images_that_are_gone_since_the_predictions_end_with_one_line(
    copied_run, data, tmp_path, capfd
):
    (copied_run / "phase_2" / "pseudo_labels.json").unlink()
    (copied_run / "phase_2" / "model_final.pth").unlink()
    more, keys = with_one_more_image(data, tmp_path / "more_images", "tiny_other")
    (tmp_path / "more_images" / "00000.png").unlink()
    stderr = error_of(capfd, runs.arguments(more, copied_run, "--resume", **keys))
    assert_one_error_line(stderr, "predictions.json", "DATASETS.UNLABELED", "12")


def test_corrected_pseudo_labels_are_trained_on(copied_run, data, monkeypatch):
    cut_back_to_phase_0(copied_run)
    corrected = copied_run / "phase_1" / "pseudo_labels.json"
    corrected.parent.mkdir()
    # As a labeling tool might write it: its own ids, names without folders, no scores.
    images = [
        {"id": 70 + number, "file_name": f"0000{number}.png", "width": 128, "height": 128}
        for number in range(3)
    ]
    boxes = [[10, 20, 30, 40], [50, 60, 20, 25]]
    content = {
        "images": images,
        "categories": [{"id": 9, "name": "3"}, {"id": 4, "name": "1"}],
        "annotations": [
            {"id": 1, "image_id": 70, "category_id": 9, "bbox": boxes[0]},
            {"id": 2, "image_id": 70, "category_id": 4, "bbox": boxes[1]},
            {"id": 3, "image_id": 72, "category_id": 4, "bbox": boxes[1]},
        ],
    }
    corrected.write_text(json.dumps(content))
    trained_on = []

    def watch(cfg, mapper, images, **keys):
        trained_on.append([image for image in images.images if "is_pseudo" in image])
        return build(cfg, mapper, images, **keys)

    build = phase_trainer.build_phase_loader
    monkeypatch.setattr(phase_trainer, "build_phase_loader", watch)
    run_here(runs.arguments(data, copied_run, "--resume"))
    assert read(corrected) == content
    first, second = trained_on[0]
    assert [a["bbox"] for a in first["annotations"]] == boxes
    assert [a["category_id"] for a in first["annotations"]] == [3, 1]
    assert second["file_name"].endswith("00002.png")
    assert summary_of(copied_run)["phases"][1]["pseudo_images"] == 2
    assert summary_of(copied_run)["phases"][1]["pseudo_boxes"] == 3


@pytest.mark.parametrize("keeps_empty", [False, True])
def test_labels_that_a_person_made_take_the_place_of_those_of_the_models(
    copied_run, data, tmp_path, capfd, keeps_empty
):
    cut_back_to_phase_0(copied_run)
    corrected = tmp_path / "corrected.json"
    content = {
        # Nothing is on the second one: it is trained on where labeled ones without objects are.
        "images": [{"id": 5, "file_name": "00001.png"}, {"id": 6, "file_name": "00000.png"}],
        "categories": [{"id": 9, "name": "3"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 9, "bbox": [10, 20, 30, 40]},
            {"id": 2, "image_id": 5, "category_id": 9, "bbox": [50, 60, 60, 60], "iscrowd": 1},
        ],
    }
    corrected.write_text(json.dumps(content))
    keys = {"SSOD__PSEUDO_LABEL__CORRECTED": corrected, "SSOD__NUM_PHASES": 1}
    keys["SSOD__SCHEDULE__MAX_ITER"] = [24, 6]
    if keeps_empty:
        keys["DATALOADER__FILTER_EMPTY_ANNOTATIONS"] = False
    run_here(runs.arguments(data, copied_run, "--resume", **keys))
    labels = read(copied_run / "phase_1" / "pseudo_labels.json")
    names = [Path(image["file_name"]).name for image in labels["images"]]
    assert names[:2] == ["00001.png", "00000.png"]
    first = labels["images"][0]["id"]
    (box,) = (a for a in labels["annotations"] if a["image_id"] == first)
    assert (box["bbox"], box["score"]) == ([10, 20, 30, 40], 1)
    assert [image.get("corrected", False) for image in labels["images"]] == [
        *(True, True),
        *(False for _ in labels["images"][2:]),
    ]
    summary = summary_of(copied_run)["phases"][1]
    assert summary["pseudo_images"] == len(names) - (0 if keeps_empty else 1)
    assert summary["labeled_images"] == 12
    manifest = read(copied_run / "phase_1" / "manifest.json")
    assert {len(manifest["corrected"].pop(f"{of}sha256")) for of in ("", "labels_")} == {64}
    written = copied_run / "phase_1" / "pseudo_labels.json"
    assert manifest["pseudo_labels_sha256"] == digest_of_file(written)
    assert [path.name for path in written.parent.glob(".*")] == []  # from which it was renamed
    expected = {"file": str(corrected), "images": 2, "boxes": 1, "images_empty": 1}
    assert manifest["corrected"] == expected
    assert "2 images have the labels of" in (copied_run / "log.txt").read_text()
    assert "which are not used" not in (copied_run / "log.txt").read_text()
    content["annotations"][0]["bbox"] = [11, 20, 30, 40]  # as many boxes, but others
    corrected.write_text(json.dumps(content))
    run_here(runs.arguments(data, copied_run, "--resume", **keys))
    assert "which are not used: add a phase" in (copied_run / "log.txt").read_text()
    corrected.write_text(json.dumps({**content, "images": content["images"][1:]}))
    error = error_of(capfd, runs.arguments(data, copied_run, "--resume", **keys))
    assert_one_error_line(error, str(corrected), "image_id 5")


def test_predictions_of_another_model_join_those_of_the_phases(copied_run, data, tmp_path, capfd):
    own = read(copied_run / "phase_0" / "predictions.json")
    cut_back_to_phase_0(copied_run)
    # It sees the same in the first image, and nothing in the others.
    first = [row for row in own if row["image_id"] == own[0]["image_id"]]
    other = write_json(tmp_path / "other.json", first)
    keys = {"SSOD__CONSENSUS__EXTRA_SOURCES": [str(other)], "SSOD__CONSENSUS__MIN_VOTES": 2}
    keys |= {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [24, 6]}
    run_here(runs.arguments(data, copied_run, "--resume", **keys))
    manifest = read(copied_run / "phase_1" / "manifest.json")
    assert list(manifest["sources"]) == ["phase_0/model_final.pth", str(other)]
    labels = read(copied_run / "phase_1" / "pseudo_labels.json")
    assert {image["id"] for image in labels["images"]} <= {own[0]["image_id"]}
    write_json(other, [{**first[0], "image_id": 999}])
    (copied_run / "phase_1" / "model_final.pth").unlink()
    (copied_run / "phase_1" / "pseudo_labels.json").unlink()
    error = error_of(capfd, runs.arguments(data, copied_run, "--resume", **keys))
    assert_one_error_line(error, str(other), "999", "SSOD.CONSENSUS.EXTRA_SOURCES")


def test_finished_run_is_only_evaluated_again(copied_run, data):
    before = (copied_run / "phase_2" / "model_final.pth").stat().st_mtime_ns
    expected = summary_of(copied_run)
    run_here(runs.arguments(data, copied_run, "--resume"))
    assert summary_of(copied_run) == expected
    assert (copied_run / "phase_2" / "model_final.pth").stat().st_mtime_ns == before


def test_new_run_sets_the_previous_one_aside(copied_run, data):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [2, 2]}
    expected = (copied_run / "summary.json").read_bytes()
    run_here(runs.arguments(data, copied_run, **keys))
    aside = copied_run.with_name("output.previous_1")
    assert (aside / "summary.json").read_bytes() == expected
    assert len(summary_of(copied_run)["phases"]) == 2
    assert not (copied_run / "phase_2").exists()


# Settings


def test_one_phase_from_the_supervised_model(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [3, 3], "SSOD__OPTIMIZER": "SGD"}
    run_here(runs.arguments(data, tmp_path, **keys, SSOD__PHASE_INIT="supervised"))
    summary = summary_of(tmp_path)
    assert len(summary["phases"]) == 2
    assert summary["ensembles"]["1~N"] == summary["phases"][1]["metrics"]
    log = log_of(tmp_path).split("Phase 1 of 0..1", 1)[1]
    assert re.search(r"Loading from \S*phase_0/model_final.pth", log.split("Results")[0])


def test_schedule_in_epochs_is_that_of_the_images_of_a_phase(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": (), "SSOD__SCHEDULE__EPOCHS": [4, 2]}
    run_here(runs.arguments(data, tmp_path, **keys))
    pseudo = summary_of(tmp_path)["phases"][1]["pseudo_images"]
    log = log_of(tmp_path)
    assert "Phase 0 of 0..1: 12 labeled images, 12 iterations of 4 images (4 epochs)" in log
    iterations = math.floor(2 * (12 + pseudo) / 4 + 0.5)
    assert f"12 labeled + {pseudo} pseudo-labeled images, {iterations} iterations of 4" in log
    checkpoint = torch.load(tmp_path / "phase_1" / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == iterations - 1


def test_random_seed_is_kept_when_a_run_goes_on(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 0, "SSOD__SCHEDULE__MAX_ITER": [2], "SEED": -1}
    run_here(runs.arguments(data, tmp_path, **keys))
    model = RunFolder(tmp_path).phase(0).model
    first = torch.load(model, weights_only=True)["model"]
    model.unlink()
    run_here(runs.arguments(data, tmp_path, "--resume", **keys))
    again = torch.load(model, weights_only=True)["model"]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_three_phases_each_from_the_one_before(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 3, "SSOD__SCHEDULE__MAX_ITER": [12, 3, 3, 3]}
    run_here(runs.arguments(data, tmp_path, **keys, SSOD__PHASE_INIT="previous"))
    assert len(summary_of(tmp_path)["phases"]) == 4
    manifests = [read(tmp_path / f"phase_{phase}" / "manifest.json") for phase in (1, 2, 3)]
    assert [len(manifest["sources"]) for manifest in manifests] == [1, 2, 3]
    fractions = [manifest["selection"]["fraction"] for manifest in manifests]
    assert fractions == pytest.approx([1 / 3, 2 / 3, 1])
    for phase in (1, 2, 3):
        entering = log_of(tmp_path).split(f"Phase {phase} of 0..3", 1)[1]
        loaded = re.search(r"Loading from \S*(phase_\d)/model_final.pth", entering)
        assert loaded[1] == f"phase_{phase - 1}"


def test_without_selectable_image_labeled_ones_are_trained_on(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [2, 2]}
    # No detection reaches this score; then no model has one on the test images, either.
    run_here(runs.arguments(data, tmp_path, **keys, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.99))
    assert "Phase 1: no unlabeled image has a pseudo-label that could be selected" in log_of(
        tmp_path
    )
    entry = summary_of(tmp_path)["phases"][1]
    assert entry["pseudo_images"] == entry["pseudo_boxes"] == 0
    assert entry["metrics"]["AP50"] == 0


def test_tta_and_other_heads_run(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [3, 3]}
    heads = {
        "MODEL__ROI_HEADS__NAME": "UncertaintyCascadeROIHeads",
        "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
    }
    tta = {"SSOD__TTA__ENABLED": True, "TEST__AUG__MIN_SIZES": [96, 128]}
    workers = {"DATALOADER__NUM_WORKERS": 1, "SSOD__SAMPLING": "union"}
    run_here(runs.arguments(data, tmp_path, **keys, **heads, **tta, **workers))
    assert read(tmp_path / "phase_1" / "manifest.json")["settings"]["SSOD.TTA.ENABLED"] is True
    assert len(summary_of(tmp_path)["phases"]) == 2


# Several processes


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would be two GPUs")
def test_two_processes_run_and_agree_with_torchrun(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [4, 4]}
    spawned, launched = tmp_path / "spawned", tmp_path / "torchrun"
    run_command(
        runs.arguments(data, spawned, "--num-gpus", "2", "--dist-url", "auto", **keys),
    )
    log = log_of(spawned)
    assert log.count("CPU, 2 processes") == 1
    assert log.count("no CUDA device: 2 processes on the CPU") == 1
    assert (spawned / "log.txt.rank1").exists()
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    port = ("--master_port", str(free_port()))
    run_command(runs.arguments(data, launched, **keys), launcher=(*torchrun, *port, "train_net.py"))
    assert "Rank of current process: 0. World size: 2" in log_of(launched)
    # The same run, started in another way: its files are the same.
    for name in ("summary.json", "phase_0/predictions.json", "phase_1/pseudo_labels.json"):
        assert (launched / name).read_bytes() == (spawned / name).read_bytes()


# A user's mistakes


def assert_one_error_line(stderr, *parts):
    """The error is one line, of all that could be taken for one the only one."""
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    for part in parts:
        assert part in errors[0]


def error_of(capfd, argv):
    """What a run in this process says on stderr as it ends."""
    with pytest.raises(SystemExit) as info:
        run_here(argv)
    assert info.value.code == USER_ERROR
    return capfd.readouterr().err


def test_unknown_key_ends_the_command_with_one_line(data, tmp_path):
    argv = runs.arguments(data, tmp_path, SSOD__NUMBER_OF_PHASES=2)
    result = run_command(argv, check=False)
    assert result.returncode == USER_ERROR
    assert_one_error_line(result.stderr, "SSOD.NUMBER_OF_PHASES")
    assert result.stderr.strip().count("\n") == 0


def test_error_of_two_processes_is_said_once(data, tmp_path):
    argv = runs.arguments(
        data, tmp_path, "--num-gpus", "2", "--dist-url", "auto", DATASETS__TEST=["missing_set"]
    )
    result = run_command(argv, check=False)
    assert result.returncode == USER_ERROR, result.stderr
    assert_one_error_line(result.stderr, "DATASETS.TEST", "missing_set")


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"SSOD__NUM_PHASES": -1}, ["SSOD.NUM_PHASES"]),
        ({"SSOD__NUM_PHASES": 1}, ["SSOD.SCHEDULE.MAX_ITER"]),
        ({"DATASETS__TRAIN": ["no_such_set"]}, ["DATASETS.TRAIN", "no_such_set"]),
        ({"DATASETS__UNLABELED": []}, ["DATASETS.UNLABELED"]),
        ({"MODEL__ROI_HEADS__NUM_CLASSES": 7}, ["MODEL.ROI_HEADS.NUM_CLASSES"]),
        ({"MODEL__WEIGHTS": "/no/such/weights.pth"}, ["MODEL.WEIGHTS", "/no/such/weights.pth"]),
        ({"MODEL__ROI_HEADS__NAME": "NoSuchHeads"}, ["MODEL.ROI_HEADS.NAME", "NoSuchHeads"]),
    ],
)
def test_wrong_value_ends_with_one_line(data, tmp_path, capfd, keys, parts):
    stderr = error_of(capfd, runs.arguments(data, tmp_path / "output", **keys))
    assert_one_error_line(stderr, *parts)
    assert not (tmp_path / "output" / "phase_0").exists()


def test_eval_only_of_an_unfinished_run_ends_with_one_line(data, tmp_path, capfd):
    stderr = error_of(capfd, runs.arguments(data, tmp_path / "output", "--eval-only"))
    assert_one_error_line(stderr, "phase_0", "OUTPUT_DIR", "no such folder")
    assert not (tmp_path / "output").exists()
    (tmp_path / "output").mkdir()
    stderr = error_of(capfd, runs.arguments(data, tmp_path / "output", "--eval-only"))
    assert_one_error_line(stderr, "phase_0/model_final.pth", "OUTPUT_DIR")


def test_damaged_corrected_labels_end_with_one_line(copied_run, data, capfd):
    cut_back_to_phase_0(copied_run)
    corrected = copied_run / "phase_1" / "pseudo_labels.json"
    corrected.parent.mkdir()
    corrected.write_text('{"images": [,')
    stderr = error_of(capfd, runs.arguments(data, copied_run, "--resume"))
    assert_one_error_line(stderr, "phase_1/pseudo_labels.json", "line 1")
    assert "Traceback" not in log_of(copied_run)


def changed_data(data, tmp_path, name, number, change):
    """The data sets with one of them copied, changed and registered under another name."""
    entry = dict(data[number])
    images = shutil.copytree(entry["IMAGES"], tmp_path / "images")
    contents = read(entry["JSON"]) if "JSON" in entry else None
    change(images, contents)
    entry.update(NAME=name, IMAGES=str(images))
    if contents is not None:
        (tmp_path / "changed.json").write_text(json.dumps(contents))
        entry["JSON"] = str(tmp_path / "changed.json")
    return [*data, entry]


def cut_image(images, contents):
    path = images / "00001.png"
    path.write_bytes(path.read_bytes()[:300])


def remove_image(images, contents):
    (images / "00001.png").unlink()


def remove_all_images(images, contents):
    for path in images.iterdir():
        path.unlink()
    if contents:
        contents.update(images=[], annotations=[])


def remove_annotations(images, contents):
    contents["annotations"] = []


def rename_class(images, contents):
    contents["categories"][2]["name"] = "two"


@pytest.mark.parametrize(
    ("key", "change", "parts"),
    [
        ("TRAIN", cut_image, ["00001.png"]),
        ("TRAIN", remove_image, ["00001.png"]),
        ("TRAIN", remove_all_images, []),
        ("TRAIN", remove_annotations, []),
        ("UNLABELED", cut_image, ["00001.png"]),
        ("UNLABELED", remove_all_images, []),
        ("TEST", cut_image, ["00001.png"]),
        ("TEST", remove_all_images, []),
        ("TEST", rename_class, ["two"]),
    ],
)
def test_wrong_data_ends_before_training_with_one_line(data, tmp_path, capfd, key, change, parts):
    name = f"tiny_{key.lower()}_{change.__name__}"
    number = ["TRAIN", "UNLABELED", "TEST"].index(key)
    changed = changed_data(data, tmp_path, name, number, change)
    argv = runs.arguments(changed, tmp_path / "output", **{f"DATASETS__{key}": [name]})
    assert_one_error_line(error_of(capfd, argv), f"DATASETS.{key}", *parts)
    assert not (tmp_path / "output" / "phase_0").exists()


# The report


def test_a_run_ends_with_a_report_of_its_figures(data, tmp_path):
    keys = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [24, 6], "SSOD__REPORT": True}
    keys["SSOD__CHECK_LABELED"] = True
    run_here(runs.arguments(data, tmp_path, **keys))
    page = (tmp_path / "report.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
    summary = summary_of(tmp_path)
    for row in (*(p["metrics"] for p in summary["phases"]), *summary["ensembles"].values()):
        assert f" {row['AP']:.1f} " in text
    boxes = read(tmp_path / "phase_1" / "manifest.json")["boxes"]
    for number in boxes["after_consensus_per_class"].values():
        assert f" {number} " in text
    assert "phase 1: training" in text
    assert "phase 0: prediction on the unlabeled images" in text
    assert f" {24 * 4 + 6 * 4} " in text  # image passes
    assert (tmp_path / "review" / "queue.json").exists()
    assert f"Report: {tmp_path / 'report.html'}" in log_of(tmp_path)


def test_what_a_missing_model_has_made_ends_a_run_before_it_trains(copied_run, data, capfd):
    for name in ("phase_0", "phase_2"):
        (copied_run / name / "model_final.pth").unlink()
    stderr = error_of(capfd, runs.arguments(data, copied_run, "--resume"))
    assert_one_error_line(stderr, "phase_0/predictions.json", "which does not exist: restore it")
    assert not (copied_run / "phase_2" / "model_final.pth").exists()


def test_a_truth_of_other_classes_ends_a_run_before_it_trains(data, tmp_path, capfd):
    changed = changed_data(data, tmp_path, "tiny_renamed_truth", 0, rename_class)
    keys = {"SSOD__DIAGNOSTICS__UNLABELED_TRUTH": "tiny_renamed_truth"}
    stderr = error_of(capfd, runs.arguments(changed, tmp_path / "output", **keys))
    assert_one_error_line(stderr, "SSOD.DIAGNOSTICS.UNLABELED_TRUTH")
    assert not (tmp_path / "output" / "phase_0").exists()


def test_the_config_is_the_one_that_the_run_goes_on_with(copied_run, data):
    run_here(runs.arguments(data, copied_run, "--resume", SSOD__ENSEMBLE__IOU_THRESH=0.7))
    assert "IOU_THRESH: 0.7" in (copied_run / "config.yaml").read_text()
