"""What the report says in sentences, and the gains beside its figures."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_run import metrics
from runs import bare_config

from d2_ssod.artifacts import RunFolder, Summary, best_phase, save_validation
from d2_ssod.commands.trained_models import choose_phases
from d2_ssod.json_files import write_json
from d2_ssod.report.collect import Control, Phase, Run
from d2_ssod.report.results import Results, verdict

BY_TEST = (
    "Chosen by the test images, which makes its figure on them too good; validation images "
    "(DATASETS.VAL) would choose without that."
)


def a_run(
    tmp_path, phases, ensembles=(), control=None, trained=(), validation=None, validated=None
):
    """A run whose models have these AP50; ``phases`` may be metrics as well, or none."""
    folder = RunFolder(tmp_path)
    for number in trained:
        folder.phase(number).folder.mkdir()
        folder.phase(number).model.touch()
    found = {n: v if isinstance(v, dict) else metrics(v) for n, v in enumerate(phases) if v}
    return Run(
        bare_config(tmp_path),
        ["cat", "dog"],
        Summary("test", found, {name: metrics(value) for name, value in ensembles})
        if found
        else None,
        [
            Phase(n, folder.phase(n), (validation or {}).get(n), None, [])
            for n in range(len(phases))
        ],
        [],
        control and Control(Path("labels_only"), metrics(control)),
        ensembles=validated or {},
    )


def sentences(*args, **keys):
    run = a_run(*args, **keys)
    return verdict(run, Results.of(run))


def test_the_best_ensemble_and_single_model_are_named(tmp_path):
    found = sentences(tmp_path, [74.0, 76.0, 77.5], [("1~N", 78.0), ("0~N", 80.2)])
    assert found == [
        "Use the ensemble of phases 0~2 together: 80.2 AP50, +6.2 over phase 0 (+3.1 AP).",
        "Of single models, phase 2 is best: 77.5 AP50, +3.5 over phase 0.",
        BY_TEST,
    ]


def test_validation_images_choose_where_there_are_any(tmp_path):
    """Not the test images, by which phase 2 is best."""
    validation = {0: {"AP": 30.0}, 1: {"AP": 34.21}, 2: {"AP": 33.0}}
    keys = {"ensembles": [("0~N", 80.2)], "validation": validation, "control": 75.0}
    (tmp_path / "model_best.pth").touch()
    assert sentences(tmp_path, [74.0, 76.0, 77.5], **keys) == [
        "Use phase 1 (model_best.pth): chosen by AP on the validation images, phase 0 30.0, phase "
        "1 34.2, phase 2 33.0. On the test images it has 76.0 AP50, +2.0 over phase 0 (+1.0 AP).",
        "The ensemble of phases 0~2 together has 80.2 AP50 on the test images, +6.2 over phase 0 "
        "(+3.1 AP). Ensembles were not judged on the validation images.",
        "Phase 1 is +1.0 AP50 against labels_only (75.0), the ensemble +5.2: no difference beyond "
        "the noise.",
    ]


@pytest.mark.parametrize(
    ("ap", "said"),
    [
        (34.2, []),
        (
            35.0,
            [
                "The ensemble of phases 0~2 together is better still, AP 35.0 on the validation "
                "images, 80.2 AP50 on the test images, +6.2 over phase 0 (+3.1 AP)."
            ],
        ),
    ],
)
def test_validation_images_choose_among_ensembles(tmp_path, ap, said):
    validation = {n: {"AP": of_phase} for n, of_phase in enumerate([30.0, 34.21, 33.0])}
    keys = {"validation": validation, "validated": {"0~N": {"AP": ap}, "1~N": {"AP": 30.0}}}
    found = sentences(tmp_path, [74.0, 76.0, 77.5], [("1~N", 90.0), ("0~N", 80.2)], **keys)
    assert found[1:] == said


def test_validation_images_may_choose_phase_0(tmp_path):
    found = sentences(tmp_path, [50.0, 53.0], validation={0: {"AP": 31.0}, 1: {"AP": 31.0}})
    assert found == [
        "Use phase 0, trained on the labeled images alone: chosen by AP on the validation images, "
        "phase 0 31.0, phase 1 31.0. Unlabeled images did not help. On the test images it has 50.0 "
        "AP50."
    ]


def test_validation_images_choose_without_test_images(tmp_path):
    validation = {0: {"AP": 31.0}, 1: {"AP": 32.0}}
    assert sentences(tmp_path, [None, None], trained=[0, 1], validation=validation) == [
        "Use phase 1: chosen by AP on the validation images, phase 0 31.0, phase 1 32.0.",
        "2 of 2 phases are trained. Nothing was judged on test images yet.",
    ]


def test_validation_images_are_compared_with_where_there_are_no_others(tmp_path):
    validation = {n: metrics(ap50) for n, ap50 in enumerate([62.0, 64.0, 60.0])}
    keys = {"validation": validation, "validated": {"0~N": metrics(66.0)}, "control": 63.5}
    assert sentences(tmp_path, [None] * 3, trained=[0, 1, 2], **keys) == [
        "Use phase 1: chosen by AP on the validation images, phase 0 31.0, phase 1 32.0, phase 2 "
        "30.0. On the validation images it has 64.0 AP50, +2.0 over phase 0 (+1.0 AP).",
        "The ensemble of phases 0~2 together is better still, AP 33.0 on the validation images, "
        "66.0 AP50, +4.0 over phase 0 (+2.0 AP).",
        "Phase 2 alone is worse than phase 0 (−2.0).",
        "Phase 1 is +0.5 AP50 against labels_only (63.5) on the validation images, which have "
        "chosen it, the ensemble +2.5: no difference beyond the noise.",
        "3 of 3 phases are trained. Nothing was judged on test images yet.",
    ]


def test_an_unfinished_run_advises_nothing_by_its_validation_images(tmp_path):
    keys = {"trained": [0], "validation": {0: metrics(62.0)}}
    assert sentences(tmp_path, [None, None], **keys) == [
        "1 of 2 phases are trained. AP on the validation images: phase 0 31.0. The run goes on "
        "with --resume."
    ]


@pytest.mark.parametrize("aps", [[31.0, 33.0, 32.0], [31.0, 31.0, 30.0], [31.0, None, 32.0]])
def test_report_and_predict_choose_the_same_phase(tmp_path, aps):
    validation = {n: {} if ap is None else {"AP": ap} for n, ap in enumerate(aps)}
    run = a_run(tmp_path, [50.0, 51.0, 52.0], validation=validation)
    for number, found in validation.items():
        run.folder.phase(number).folder.mkdir()
        save_validation(run.folder, number, found)
    chosen = run.validated_best
    assert (chosen and chosen.number) == best_phase(run.folder, 2)


def test_report_and_predict_choose_the_same_by_test_images(tmp_path):
    phases = [{"AP": 40.0, "AP50": 60.0}, {"AP": 39.0, "AP50": 64.0}]
    run = a_run(tmp_path, phases, trained=[0, 1])
    assert verdict(run, Results.of(run))[0].startswith("Use phase 0")
    rows = [{"phase": n, "metrics": own} for n, own in enumerate(phases)]
    content = {"dataset": "test", "phases": rows, "ensembles": {}}
    write_json(run.folder.summary(), content)
    run.cfg.SSOD.NUM_PHASES = 1
    assert choose_phases(run.cfg, "best") == [0]


def test_phase_0_says_nothing_of_unlabeled_images(tmp_path):
    found = sentences(tmp_path, [70.0, 60.0], control=50.0)
    assert "Phase 0 is +20.0 AP50 against labels_only (50.0); phase 0 has learned" in found[-1]
    assert not any("paid" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("unlabeled", "passes", "said"),
    [
        (False, 100, []),
        (False, None, []),
        (True, 90, ["has learned from unlabeled images itself"]),
        (False, 40, ["was trained on 40 images, each time counted, this run on 100"]),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(tmp_path, unlabeled, passes, said):
    run = a_run(tmp_path, [70.0, 73.0])
    event = {"event": "trained", "phase": 0, "iterations": 50, "images_per_batch": 2, "seconds": 9}
    control = Control(Path("labels_only"), metrics(60.0), unlabeled, passes)
    run = replace(run, history=[event], control=control)
    found = verdict(run, Results.of(run))
    at = next(n for n, sentence in enumerate(found) if "against labels_only" in sentence)
    assert found[at].endswith("(60.0)." if unlabeled else "(60.0): the unlabeled images paid.")
    assert len(found) == at + 1 + len(said)
    assert all(text in sentence for text, sentence in zip(said, found[at + 1 :], strict=True))


def test_a_phase_that_is_worse_is_named_with_its_class(tmp_path):
    before = metrics(49.6, **{"AP-cat": 20.0, "AP-dog": 30.0})
    after = metrics(42.7, **{"AP-cat": 19.0, "AP-dog": 22.5})
    assert sentences(tmp_path, [before, after]) == [
        "Use phase 0, trained on the labeled images alone: 49.6 AP50. "
        "Unlabeled images did not help.",
        BY_TEST,
        "Phase 1 alone is worse than phase 0 (−6.9); see class dog (−7.5 AP).",
    ]


def test_a_gain_within_the_noise_is_said_to_be(tmp_path):
    first = sentences(tmp_path, [50.0, 50.8])[0]
    assert first.endswith("+0.8 over phase 0 (+0.4 AP). Within the noise of one run (1.2).")


@pytest.mark.parametrize(
    ("control", "end"),
    [
        (70.0, "is +3.0 AP50 against labels_only (70.0): the unlabeled images paid."),
        (72.5, "is +0.5 AP50 against labels_only (72.5): no difference beyond the noise."),
        (80.0, "is −7.0 AP50 against labels_only (80.0): the labels alone were better."),
    ],
)
def test_labels_alone_are_compared_with(tmp_path, control, end):
    assert sentences(tmp_path, [70.0, 73.0], control=control)[-1].endswith(end)


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    (first,) = sentences(tmp_path, [None, None, None], trained=[0], validation={0: {"AP": 31.25}})
    assert first == (
        "1 of 3 phases are trained. AP on the validation images: phase 0 31.2. The run goes on "
        "with --resume."
    )


def test_phase_0_alone_is_not_said_to_be_helped_by_nothing(tmp_path):
    assert sentences(tmp_path, [49.6]) == [
        "Use phase 0, trained on the labeled images alone: 49.6 AP50."
    ]


def test_a_metric_that_there_is_not_has_no_gain(tmp_path):
    run = a_run(tmp_path, [metrics(50.0, **{"AP-cat": 1.0, "AP-cat/easy": 1.0}), metrics(60.0)])
    results = Results.of(run)
    assert results.gain(results.rows[1], "AP50") == 10
    assert results.gain(results.rows[0], "AP50") is None
    assert results.rows[1].value("AP-cat") is None
    assert results.gain(results.rows[1], "AP-cat") is None
    assert results.columns == ["AP", "AP50", "AP75"]
    assert results.classes == ["cat"]


def test_labels_alone_are_not_said_to_be_helped_by_unlabeled_images(tmp_path):
    last = sentences(tmp_path, [50.0], control=48.0)[-1]
    assert "phase 0 has learned from the labels alone, too." in last
    run = a_run(tmp_path, [50.0], control=48.0)
    run = replace(run, has_learned_unlabeled=True)  # as CSD does
    found = verdict(run, Results.of(run))
    assert found[0] == "Use phase 0: 50.0 AP50."
    assert found[-1].endswith(": the unlabeled images paid.")


def test_phase_0_that_has_learned_from_both_is_not_one_of_labels_alone(tmp_path):
    validation = {0: {"AP": 31.0}, 1: {"AP": 30.0}}
    run = a_run(tmp_path, [50.0, 49.0], validation=validation)
    assert verdict(run, Results.of(run))[0].startswith(
        "Use phase 0, trained on the labeled images alone: chosen by"
    )
    found = verdict(own := replace(run, has_learned_unlabeled=True), Results.of(own))
    assert found[0].startswith("Use phase 0: chosen by AP on the validation images")
    assert "did not help" not in found[0]


def test_a_loss_within_the_noise_is_not_said_to_be_worse(tmp_path):
    found = sentences(tmp_path, [50.0, 49.2, 53.0])  # 1.2 points are noise
    assert not any("is worse than phase 0" in sentence for sentence in found)


def test_a_run_to_compare_with_is_no_model_of_this_one(tmp_path):
    found = sentences(tmp_path, [50.0], control=48.0)
    assert found[0] == "Use phase 0, trained on the labeled images alone: 50.0 AP50."
    assert BY_TEST not in found  # there was nothing to choose


def test_phase_0_alone_is_not_said_to_be_helped_by_nothing_by_its_validation(tmp_path):
    (said,) = sentences(tmp_path, [50.0], validation={0: {"AP": 31.0}})
    assert "Unlabeled images did not help" not in said


def test_the_file_of_the_best_model_is_named_where_one_is_kept(tmp_path):
    (tmp_path / "model_best.pth").touch()
    run = a_run(tmp_path, [50.0, 53.0], validation={0: {"AP": 31.0}, 1: {"AP": 32.0}})
    assert "Use phase 1 (model_best.pth): " in verdict(run, Results.of(run))[0]
    run.cfg.SSOD.KEEP_BEST = False  # that of an earlier command
    assert "Use phase 1: " in verdict(run, Results.of(run))[0]


def test_a_large_loss_is_not_within_the_noise(tmp_path):
    validation = {0: {"AP": 31.0}, 1: {"AP": 32.0}}
    first = sentences(tmp_path, [53.0, 50.0], validation=validation)[0]
    assert first.endswith("it has 50.0 AP50, −3.0 over phase 0 (−1.5 AP).")


def test_a_class_that_is_no_worse_is_not_blamed(tmp_path):
    before, after = metrics(49.6, **{"AP-cat": 20.0}), metrics(42.7, **{"AP-cat": 21.0})
    assert sentences(tmp_path, [before, after])[-1] == (
        "Phase 1 alone is worse than phase 0 (−6.9)."
    )
