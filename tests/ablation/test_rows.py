from ablation.rows import SEMI_SUPERVISED, SETTINGS, SUPERVISED, Run, all_runs


def test_all_runs_cover_every_row_with_every_seed_once():
    runs = all_runs(seeds=(0, 1), main_seeds=(0, 1, 2))
    assert len(runs) == len(set(runs))
    semi = {Run(s, row, seed) for s in SETTINGS for row in SEMI_SUPERVISED for seed in range(2)}
    supervised = {Run("ordinary", row, seed) for row in SUPERVISED for seed in range(2)}
    assert semi | supervised <= set(runs)


def test_all_runs_give_the_main_rows_and_what_they_need_more_seeds():
    third = {(run.setting, run.row) for run in all_runs((0, 1), (0, 1, 2)) if run.seed == 2}
    assert third == {
        ("ordinary", "fs"),
        *((s, row) for s in SETTINGS for row in ("none", "constant", "paper")),
    }


def test_all_runs_come_after_what_they_need():
    runs = all_runs()
    place = {run: number for number, run in enumerate(runs)}
    assert all(place[need] < place[run] for run in runs for need in run.needs)


def test_a_seed_is_complete_before_the_next_begins():
    semi = [run.seed for run in all_runs((4, 7), (4, 7)) if run.row in SEMI_SUPERVISED]
    assert semi == sorted(semi)


def test_constant_needs_the_paper_run_of_its_seed_and_setting():
    assert Run("sparse", "constant", 4).needs == [
        Run("ordinary", "fs", 4),
        Run("sparse", "paper", 4),
    ]


def test_ensembles_of_phase_0_share_no_member():
    members = [need for number in range(3) for need in Run("ordinary", "fs_x3", number).needs]
    assert [need.seed for need in members] == list(range(9))
