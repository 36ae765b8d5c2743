"""Parts of one's own in a config."""

import sys

import pytest
from detectron2.modeling import ROI_HEADS_REGISTRY
from runs import CONFIG_FILE

from d2_ssod import config
from d2_ssod.engine import check_registered_names
from d2_ssod.engine.configs.files import read_config
from d2_ssod.errors import ConfigError

PARTS = """
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY

from d2_ssod.config import extend_config
from d2_ssod.modeling import UncertaintyROIHeads


@ROI_HEADS_REGISTRY.register()
class HeadsOfMyOwn(UncertaintyROIHeads):
    pass


@extend_config
def add_my_keys(cfg):
    cfg.MODEL.MINE = CfgNode({"ALPHA": 0.5})
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module with parts of one's own, forgotten afterwards."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "_extensions", [])
    yield "my_parts"
    sys.modules.pop("my_parts", None)
    ROI_HEADS_REGISTRY._obj_map.pop("HeadsOfMyOwn", None)


def test_modules_that_the_file_names_add_parts_and_keys(module, tmp_path):
    base, own = tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text(f"_BASE_: {CONFIG_FILE}\nSSOD:\n  IMPORTS: [{module}]\n")
    own.write_text(
        "_BASE_: base.yaml\nMODEL:\n  MINE: {ALPHA: 0.25}\n  ROI_HEADS: {NAME: HeadsOfMyOwn}\n"
    )
    for _ in range(2):  # the second time it is imported already
        cfg = read_config(str(own))
        assert cfg.MODEL.MINE.ALPHA == 0.25
        check_registered_names(cfg)
    kept = tmp_path / "config.yaml"
    kept.write_text(cfg.dump())
    assert read_config(str(kept)).MODEL.MINE.ALPHA == 0.25


@pytest.mark.parametrize("value", ["['my_parts']", "('my_parts',)"])
def test_modules_that_the_command_line_names_are_imported(module, value):
    overrides = ["MODEL.MINE.ALPHA", "1.5", "SSOD.IMPORTS", value]
    assert read_config("", overrides).MODEL.MINE.ALPHA == 1.5


def test_modules_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match=r"SSOD\.IMPORTS: no_such\.parts cannot be imported"):
        read_config("", ["SSOD.IMPORTS", "['no_such.parts']"])


def test_parts_that_are_not_registered_are_named_with_the_remedy():
    cfg = read_config(str(CONFIG_FILE))
    cfg.MODEL.ROI_HEADS.NAME = "HeadsOfMyOwn"
    with pytest.raises(ConfigError, match=r"'HeadsOfMyOwn'; .*SSOD\.IMPORTS"):
        check_registered_names(cfg)


@pytest.mark.parametrize("value", ["my_parts", "[my_parts]", "3"])
def test_what_is_no_list_of_modules_is_named(value):
    with pytest.raises(ConfigError, match=r"^SSOD\.IMPORTS is .*a list of names"):
        read_config("", ["SSOD.IMPORTS", value, "MODEL.MINE.ALPHA", "1"])


@pytest.mark.parametrize("text", ["1 / 0", "def", "raise KeyError('x')"])
def test_modules_that_fail_are_named(module, tmp_path, text):
    (tmp_path / "my_parts.py").write_text(text)
    with pytest.raises(ConfigError, match=r"SSOD\.IMPORTS: my_parts cannot be imported \(\w+Error"):
        read_config("", ["SSOD.IMPORTS", "['my_parts']"])


@pytest.mark.parametrize("name", ["", ".parts"])
def test_names_that_are_none_of_modules_are_named(name):
    with pytest.raises(ConfigError, match=r"SSOD\.IMPORTS: .*cannot be imported"):
        read_config("", ["SSOD.IMPORTS", repr([name])])


def test_keys_of_ones_own_that_are_not_there_are_answered_with_the_remedy():
    with pytest.raises(
        ConfigError, match=r"MODEL\.MINE.*added by a module that SSOD\.IMPORTS names"
    ):
        read_config("", ["MODEL.MINE.ALPHA", "1"])


def test_a_lazy_config_is_refused_as_such():
    with pytest.raises(ConfigError, match=r"^mine\.py: LazyConfig files are not read"):
        read_config("mine.py", [], on_cpu=True)
