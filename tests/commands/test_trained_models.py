import os

import pytest
import runs

from d2_ssod.artifacts import RunFolder, save_classes, save_ensemble_validation, save_validation
from d2_ssod.commands import main, trained_models
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json

CLASSES = ["cat", "dog"]


def make_run(root, classes=CLASSES, **keys):
    folder = RunFolder(root)
    cfg = runs.bare_config(root)
    cfg.merge_from_file(str(runs.CONFIG_FILE))
    cfg.merge_from_list([part for k, v in keys.items() for part in (k.replace("__", "."), v)])
    root.mkdir()
    folder.config.write_text(cfg.dump())
    save_classes(folder, classes)
    return str(root)


def test_runs_that_see_pictures_alike_are_opened(tmp_path):
    places = [make_run(tmp_path / name) for name in "ab"]
    assert [cfg.OUTPUT_DIR for cfg in trained_models.open_runs(places)] == places


@pytest.mark.parametrize(
    ("classes", "keys", "message"),
    [
        (["cat", "bird"], {}, "other classes than .*/a: missing 'dog', additional 'bird'"),
        (
            CLASSES,
            {"INPUT.MIN_SIZE_TEST": 64},
            r"INPUT\.MIN_SIZE_TEST is 64, but 128 in .*/a; name",
        ),
        (CLASSES, {"INPUT.FORMAT": "RGB"}, r"INPUT\.FORMAT is 'RGB', but 'BGR' in"),
    ],
)
def test_runs_that_do_not_fit_are_not_fused(tmp_path, classes, keys, message):
    places = [make_run(tmp_path / "a"), make_run(tmp_path / "b", classes, **keys)]
    with pytest.raises(ConfigError, match=f"^{tmp_path}/b: .*{message}"):
        trained_models.open_runs(places)


def test_a_run_is_not_fused_with_itself(tmp_path):
    place = make_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(place)
    for again in (place, f"{place}/../a", os.path.relpath(place), str(tmp_path / "link")):
        with pytest.raises(ConfigError, match="is named twice"):
            trained_models.open_runs([place, again])


def test_best_is_that_of_the_validation_or_else_of_the_test_images(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "best AP on the validation images, or, without such, on the test images" in text
    cfg = trained_models.open_runs([make_run(tmp_path / "a", SSOD__NUM_PHASES=3)])[0]
    folder = RunFolder(cfg.OUTPUT_DIR)
    folder.phase(0).folder.mkdir()
    folder.phase(0).model.touch()
    phases = [{"phase": n, "metrics": {"AP": ap}} for n, ap in enumerate([3.0, None, 5.0, 4.0])]
    ensembles = {"1~N": {"AP": 4.5}, "0~N": {"AP": 5.0}}
    found = {"dataset": cfg.DATASETS.TEST[0], "phases": phases, "ensembles": ensembles}
    write_json(folder.summary(), found)
    assert trained_models.choose_phases(cfg, "best") == [2]
    write_json(folder.summary(), found | {"ensembles": {"1~N": {"AP": 5.5}}})
    assert trained_models.choose_phases(cfg, "best") == [1, 2, 3]
    unknown = [{"phase": 0, "metrics": {"AP": None}}]
    write_json(folder.summary(), found | {"phases": unknown, "ensembles": {}})
    with pytest.raises(ConfigError, match=r"summary\.json: no model has an AP, .*--eval-only"):
        trained_models.choose_phases(cfg, "best")
    for phase, ap in enumerate([3.0, 6.0, 5.0, 4.0]):
        folder.phase(phase).folder.mkdir(exist_ok=True)
        save_validation(folder, phase, {"AP": ap})
    assert trained_models.choose_phases(cfg, "best") == [1]
    save_ensemble_validation(folder, 3, {"1~N": {"AP": 5.5}, "0~N": {"AP": 6.5}})
    assert trained_models.choose_phases(cfg, "best") == [0, 1, 2, 3]
