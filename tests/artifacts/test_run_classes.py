"""Which classes the models of a run find."""

import pytest
from runs import bare_config

from d2_ssod.artifacts import RunFolder, check_classes, save_classes
from d2_ssod.errors import ConfigError


def trained(output):
    """A folder in which phase 0 was begun."""
    folder = RunFolder(output)
    save_classes(folder, ["cat", "dog"])
    folder.phase(0).folder.mkdir()
    folder.phase(0).trained_with.write_text("{}")
    return bare_config(output)


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (["dog", "cat"], "the same names in another order, 'cat', 'dog' instead of 'dog', 'cat'"),
        (["cat", "wolf"], "missing 'wolf', additional 'dog'"),
        (["cat"], "additional 'dog'"),
    ],
)
def test_other_classes_are_refused(tmp_path, classes, difference):
    cfg = trained(tmp_path)
    with pytest.raises(ConfigError, match=f"classes.json has other classes .*: {difference};"):
        check_classes(cfg, classes)
    cfg.SSOD.RESUME_ANYWAY = True
    check_classes(cfg, classes)


def test_the_same_classes_and_those_before_training_are_taken(tmp_path):
    check_classes(bare_config(tmp_path), ["cat"])
    save_classes(RunFolder(tmp_path), ["cat", "dog"])
    check_classes(bare_config(tmp_path), ["cat"])
    check_classes(trained(tmp_path), ["cat", "dog"])
