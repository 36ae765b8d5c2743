import importlib.util
from pathlib import Path

import catalogs
import pytest
import runs
import torch
from catalogs import registered_anew
from detectron2.data import DatasetCatalog
from runs import CONFIG_FILE

from d2_ssod.data import register_builtin
from d2_ssod.data.datasets import builtin
from d2_ssod.engine import build_config, data_checks, default_argument_parser
from d2_ssod.engine import setup as engine_setup
from d2_ssod.engine.output_folder import check_output_dir
from d2_ssod.engine.setup import _with_seed
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import detector_of

VOC_BEST = runs.ROOT / "configs" / "voc_best.yaml"


@pytest.fixture(autouse=True)
def restored_catalogs():
    """Forget the data sets that a test registers."""
    with catalogs.restored_catalogs():
        yield


def build(*opts, config_file=CONFIG_FILE, flags=("--num-gpus", "0"), world_size=1):
    argv = ["--config-file", str(config_file), *flags, *opts]
    return build_config(default_argument_parser().parse_args(argv), world_size)


def error_of(*opts, **keys):
    with pytest.raises(ConfigError) as info:
        build(*opts, **keys)
    message = str(info.value)
    assert "\n" not in message
    return message


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_config_is_the_file_with_the_command_lines_values(tmp_path):
    cfg = build("SOLVER.BASE_LR", "0.5", "SSOD.NUM_PHASES", "2", "OUTPUT_DIR", str(tmp_path))
    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.SSOD.SAMPLING == "balanced"
    assert {cfg.OUTPUT_DIR} == {str(tmp_path)}
    assert cfg.is_frozen()


def test_config_without_gpus_is_for_the_cpu():
    assert build().MODEL.DEVICE == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_config_for_gpus_that_are_not_there_is_for_the_cpu():
    assert build(flags=("--num-gpus", "2"), world_size=2).MODEL.DEVICE == "cpu"


def test_every_config_file_is_right(monkeypatch):
    monkeypatch.setattr(data_checks.registered, "missing_paths", lambda name: [])
    for path in CONFIG_FILE.parent.glob("[a-z]*.yaml"):  # not Base-*.yaml, which names no data
        if path.stem.endswith("timm") and importlib.util.find_spec("timm") is None:
            continue
        cfg = build(config_file=path)
        heads = cfg.MODEL.ROI_HEADS.NAME
        weighs = detector_of(cfg).has_roi_heads and heads == "UncertaintyROIHeads"
        assert weighs or cfg.SSOD.ROI_WEIGHTING.NAME == "none", path


def test_all_that_is_missing_of_official_data_is_listed_with_the_layout(tmp_path, monkeypatch):
    names = [*builtin.VOC, *builtin.COCO]
    with registered_anew(names, register_builtin, tmp_path):
        (tmp_path / "VOC2012" / "JPEGImages").mkdir(parents=True)
        message = error_of(config_file=CONFIG_FILE.with_name("voc_two_phase.yaml"))
    for path in (
        "VOC2007/Annotations",
        "VOC2007/JPEGImages",
        "VOC2012/ImageSets/Main/trainval.txt",
    ):
        assert str(tmp_path / path) in message
    assert str(tmp_path / "VOC2012" / "JPEGImages") not in message
    assert str(tmp_path / "VOC2012" / "Annotations") not in message  # of unlabeled images
    assert "VOC2007/ImageSets/Main/test.txt" in message
    assert "DETECTRON2_DATASETS" in message


def test_unknown_key_on_the_command_line_is_named():
    message = error_of("SSOD.NUM_PHASE", "2")
    assert "SSOD.NUM_PHASE" in message
    assert "unknown" in message
    assert "the command line" in message
    assert "correct it, such as to SSOD.NUM_PHASES, or remove it" in message


def test_unknown_key_in_the_file_is_named(tmp_path):
    path = write(tmp_path, "SSOD:\n  NUM_PHASE: 2\n")
    message = error_of(config_file=path)
    assert "SSOD.NUM_PHASE" in message
    assert str(path) in message
    assert "correct it, such as to SSOD.NUM_PHASES, or remove it" in message


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.yaml"
    message = error_of(config_file=path)
    assert str(path) in message
    assert "correct the path" in message.lower()


def test_a_ready_config_is_found_wherever_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = error_of(config_file="configs/voc_best.yaml")
    assert message.endswith(f"Correct the path: that of the ready one is {VOC_BEST}")
    assert error_of(config_file="configs/mine.yaml").endswith("Correct the path.")


def test_missing_base_file_is_named(tmp_path):
    message = error_of(config_file=write(tmp_path, "_BASE_: no_such_base.yaml\n"))
    assert str(tmp_path / "no_such_base.yaml") in message


@pytest.mark.parametrize(
    "text",
    [
        "SSOD: [1, 2\n",
        "just a sentence\n",
        "- a\n- list\n",
        "SSOD:\n  NUM_PHASES: [1]\n",
        "SSOD: 3\n",
    ],
)
def test_file_that_is_no_config_is_named(tmp_path, text):
    path = write(tmp_path, text)
    assert str(path) in error_of(config_file=path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SSOD.NUM_PHASES", "two", "a whole number"),
        ("SSOD.NUM_PHASES", "2.0", "a whole number"),
        ("SSOD.AVERAGE.DECAY", "0", "a number with a decimal point, such as 1.0"),
        ("SSOD.REPORT", "false", "True or False"),
        ("SSOD.SCHEDULE.MAX_ITER", "100", "a list in brackets"),
        ("SSOD.START.PHASE_0", "3", "a text, with quotes of its own"),
        ("SSOD.AUG", "3", "a section with keys"),
    ],
)
def test_value_of_a_wrong_type_is_named(key, value, expected):
    message = error_of(key, value)
    assert message.startswith(f"config (the command line): {key} is {value}; it must be {expected}")


@pytest.mark.parametrize(
    "opts",
    [
        ["SSOD.NUM_PHASES"],
        ["SEED=1"],
        ["SOLVER.STEPS", "[250,", "100]"],
        ["SSOD.NUM_PHASES", "1", "--resume"],
    ],
)
def test_overrides_that_are_no_pairs_are_an_error(opts):
    message = error_of(*opts)
    assert "odd length" in message
    assert message.endswith(
        "(KEY VALUE, not KEY=VALUE; lists in quotes, as '[250, 100]'; options before keys)"
    )


def test_key_that_stands_twice_is_named(tmp_path):
    path = write(tmp_path, "SEED: 1\nSEED: 2\n")
    assert error_of(config_file=path).startswith(f"{path}: SEED stands twice, in lines 1 and 2, ")


@pytest.mark.parametrize("key", ["TRAIN", "UNLABELED", "VAL", "TEST"])
def test_data_set_that_is_named_twice_is_refused(key):
    name = "digit_scenes_test"
    message = error_of(f"DATASETS.{key}", f"[{name!r}, 'digit_scenes_labeled', {name!r}]")
    assert message.startswith(f"DATASETS.{key} names {name} 2 times; name it once")


def test_wrong_number_of_phases_is_named():
    assert "SSOD.NUM_PHASES is -1" in error_of("SSOD.NUM_PHASES", "-1")


def test_uneven_batch_is_named():
    assert "SOLVER.IMS_PER_BATCH is 8" in error_of(world_size=3)


def test_wrong_register_entry_is_named():
    message = error_of("SSOD.REGISTER", "[{'NAME': 'a', 'IMAGES': '/no/such/folder'}]")
    assert "SSOD.REGISTER[0].IMAGES" in message


def test_registered_data_sets_are_known(tmp_path):
    build("SSOD.REGISTER", f"[{{'NAME': 'test_setup_set', 'IMAGES': '{tmp_path}'}}]")
    assert "test_setup_set" in DatasetCatalog


# The output folder of an earlier run


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "note.txt").write_text("mine")
    return folder


def test_run_that_cannot_be_set_aside_is_named(output, monkeypatch):
    (output / "summary.json").touch()

    def refuse(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR .*resource busy.*--resume"):
        run_setup(output)


def test_previous_run_stays_where_a_data_set_is_unknown(output):
    (output / "summary.json").touch()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN"):
        run_setup(output, "DATASETS.TRAIN", "('no_such_set',)")
    assert (output / "summary.json").exists()


def run_setup(output, *flags):
    argv = ["--config-file", str(CONFIG_FILE), "--num-gpus", "0", *flags, "OUTPUT_DIR", str(output)]
    try:
        return engine_setup(default_argument_parser().parse_args(argv))
    finally:
        runs.forget_log_files()


@pytest.mark.parametrize("name", ["", "~/run", "run?", "a\tb", "a\n/b"])
def test_folder_from_which_no_checkpoint_can_be_read_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert error_of("OUTPUT_DIR", repr(name)).startswith("OUTPUT_DIR is ")
    assert list(tmp_path.iterdir()) == []


def test_folder_without_a_run_is_used_as_it_is(output):
    run_setup(output)
    assert (output / "note.txt").exists()
    assert (output / "config.yaml").exists()
    assert [path.name for path in output.parent.iterdir()] == ["output"]


@pytest.mark.parametrize("trace", ["last_checkpoint", "phase_0", "phase_1", "summary.json"])
def test_previous_run_is_set_aside(output, trace):
    (output / trace).touch()
    run_setup(output)
    aside = output.with_name("output.previous_1")
    assert (aside / trace).exists()
    assert (aside / "note.txt").exists()
    assert not (output / trace).exists()
    assert (output / "config.yaml").exists()


def test_a_link_to_the_folder_stays_one(output):
    (output / "summary.json").touch()
    link = output.parent.parent / "link"
    link.symlink_to(output)
    run_setup(link)
    assert link.readlink() == output
    assert (output.with_name("output.previous_1") / "summary.json").exists()
    assert (output / "config.yaml").exists()


def test_a_folder_that_is_no_utf8_is_refused():
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR is '.*no text in UTF-8"):
        check_output_dir("run_\udcfc")


def test_previous_run_in_the_working_directory_stays(output, monkeypatch):
    (output / "summary.json").touch()
    monkeypatch.chdir(output)
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR .*is where this command is run.*--resume"):
        run_setup(".")
    assert (output / "summary.json").exists()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("SSOD.START.PHASE_0", "summary.json"),
        ("SSOD.PSEUDO_LABEL.FROM", "linked"),  # to what lies elsewhere
        ("MODEL.WEIGHTS", "summary.json?matching_heuristics=True"),
        ("SSOD.CONSENSUS.EXTRA_SOURCES", "../link/summary.json"),  # to the folder
        ("SSOD.PSEUDO_LABEL.CORRECTED", "../link/linked"),
        ("SSOD.REGISTER[0].IMAGES", "."),
    ],
)
@pytest.mark.parametrize("begin", ["{}", "~/output"])
def test_previous_run_that_this_one_reads_from_stays(output, monkeypatch, key, text, begin):
    """A new run of the same name, from what the earlier one has made."""
    (output / "summary.json").touch()
    (output.parent / "elsewhere").touch()
    (output / "linked").symlink_to("../elsewhere")
    (output.parent / "link").symlink_to("output")
    monkeypatch.setenv("HOME", str(output.parent))
    path = f"{begin.format(output)}/{text}"
    value = {
        "SSOD.REGISTER[0].IMAGES": f"[{{'NAME': 'set_within', 'IMAGES': {path!r}}}]",
        "SSOD.CONSENSUS.EXTRA_SOURCES": f"[{path!r}]",
    }.get(key, path)
    with pytest.raises(ConfigError) as info:
        run_setup(output, key.split("[")[0], value)
    assert f"cannot be set aside with {path} ({key}) in it" in str(info.value)
    assert (output / "summary.json").exists()
    run_setup(output, "--resume", key.split("[")[0], value)


@pytest.mark.parametrize("name", ["uncertainty", "cpu", "paper"])
def test_a_folder_may_have_the_name_of_any_value(output, monkeypatch, name):
    monkeypatch.chdir(output.parent)
    output.rename(name)
    (output.parent / name / "phase_0").mkdir()
    run_setup(name)
    assert (output.parent / f"{name}.previous_1" / "phase_0").exists()


def test_keys_without_effect_are_said(output, caplog):
    keys = ("TEST.EVAL_PERIOD", "TEST.PRECISE_BN.ENABLED", "TEST.AUG.ENABLED", "VIS_PERIOD")
    run_setup(output, *(part for key in keys for part in (key, "1" if "PERIOD" in key else "True")))
    log = (output / "log.txt").read_text()
    for key in keys:
        assert f"{key} is " in log
    assert log.count("but has no effect") == len(keys)


def test_several_previous_runs_are_all_kept(output):
    for number in range(1, 4):
        (output / "phase_0").mkdir()
        (output / "number").write_text(str(number))
        run_setup(output)
    kept = [output.with_name(f"output.previous_{number}") / "number" for number in range(1, 4)]
    assert [path.read_text() for path in kept] == ["1", "2", "3"]


@pytest.mark.parametrize("flag", ["--resume", "--eval-only"])
def test_run_that_goes_on_is_not_set_aside(output, flag):
    (output / "phase_0").mkdir()
    (output / "phase_0" / "model_final.pth").touch()
    run_setup(output, flag)
    assert (output / "phase_0").exists()
    assert [path.name for path in output.parent.iterdir()] == ["output"]


@pytest.mark.parametrize("text", ["SEED: [1", "- SEED", "SEED: one", "", "text", "[" * 2000])
def test_a_damaged_config_with_a_seed_to_keep_is_named(tmp_path, text):
    path = write(tmp_path, text)
    cfg = build("SEED", "-1", "OUTPUT_DIR", str(path.parent))
    path.rename(path.parent / "config.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml: its SEED .*; restore the file, or give"):
        _with_seed(cfg, go_on=True)
