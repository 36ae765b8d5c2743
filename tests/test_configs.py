"""Every shipped config can be read, is what its data sets ask for, and builds its model."""

import re

import pytest
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from runs import ROOT

import d2_ssod.data
import d2_ssod.demo  # noqa: F401
from d2_ssod.engine.configs.checks import check_config
from d2_ssod.engine.configs.files import read_config
from d2_ssod.engine.configs.schedule import phase_config
from d2_ssod.modeling import num_classes

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMPLETE = [path for path in CONFIGS if not path.name.startswith("Base-")]


def names(paths):
    return [path.stem for path in paths]


@pytest.fixture
def cfg(path, tmp_path):
    cfg = read_config(str(path))
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


@pytest.mark.parametrize("path", CONFIGS, ids=names(CONFIGS))
def test_config_is_accepted_and_builds_its_model(cfg):
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.WEIGHTS = "cpu", "", ""
    if "timm" in cfg.MODEL.BACKBONE.NAME:
        pytest.importorskip("timm")
    # Those for the CPU have small batches.
    check_config(cfg, 8 if cfg.SOLVER.IMS_PER_BATCH >= 16 else 4)
    build_model(cfg)


@pytest.mark.parametrize("path", COMPLETE, ids=names(COMPLETE))
def test_config_names_data_sets_of_its_classes(cfg):
    used = [name for key in ("TRAIN", "UNLABELED", "TEST") for name in cfg.DATASETS[key]]
    assert len(used) >= 2
    for name in used:
        assert len(MetadataCatalog.get(name).thing_classes) == num_classes(cfg)


@pytest.mark.parametrize("path", COMPLETE, ids=names(COMPLETE))
def test_every_phase_has_a_schedule_whose_drops_are_within_it(cfg):
    for phase in range(cfg.SSOD.NUM_PHASES + 1):
        own = phase_config(cfg, phase, 10_000, 10_000 if phase else 0)
        assert own.SOLVER.MAX_ITER > 1000
        assert all(step < own.SOLVER.MAX_ITER for step in own.SOLVER.STEPS)
        drops = cfg.SSOD.SCHEDULE.STEPS or cfg.SSOD.SCHEDULE.STEP_EPOCHS
        wanted = drops[phase] if drops else ()
        assert len(own.SOLVER.STEPS) == (len(wanted) if isinstance(wanted, list) else bool(drops))


@pytest.mark.parametrize("path", COMPLETE, ids=names(COMPLETE))
def test_output_folder_has_the_configs_name(path):
    folder = read_config(str(path)).OUTPUT_DIR
    assert folder == f"output/{path.stem}"


def test_every_config_is_told_of_and_every_one_told_of_exists():
    """A row of the paper's tables that is added there, or here, is not forgotten."""
    pages = ("README.md", "docs/reproduce.md", "docs/settings.md")
    text = "".join((ROOT / page).read_text() for page in pages)
    told = set(re.findall(r"`(?:configs/)?((?:voc|coco|digits)_\w+?)(?:\.yaml)?`", text))
    known = {path.stem for path in COMPLETE}
    assert known <= told
    assert {
        name for name in told - known if not name.endswith(("labeled", "test", "minival", "val"))
    } == set()


def test_batches_of_data_distillation_are_half_of_labeled_images():
    named = [path for path in CONFIGS if "data_distillation" in path.stem]
    assert len(named) > 2
    for path in named:
        cfg = read_config(str(path))
        # Sorted by shape, a batch is that on average only.
        assert (cfg.SSOD.SAMPLING, cfg.DATALOADER.ASPECT_RATIO_GROUPING) == ("balanced", False)


def test_configs_in_the_pages_on_clusters_are_for_their_processes():
    text = (ROOT / "docs" / "cluster.md").read_text()
    blocks = [block for block in text.split("```")[1::2] if "--config-file" in block]
    assert len(blocks) > 1
    for block in blocks:
        (name,) = re.findall(r"--config-file configs/(\S+)", block)
        nodes = re.search(r"--nodes=(\d+)", block)
        (processes,) = re.findall(r"(?:--num-gpus|--nproc-per-node) (\d+)", block)
        check_config(
            read_config(str(ROOT / "configs" / name), [], on_cpu=True),
            int(nodes[1] if nodes else 1) * int(processes),
        )
