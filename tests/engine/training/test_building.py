import pytest

from d2_ssod.engine.training.building import said_in_one_line
from d2_ssod.errors import ConfigError


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ImportError("Cannot import 'x', therefore\n'DeformConv' is not available."), "Import"),
        (AttributeError("no op 'box_iou_rotated'"), "Attribute"),
        (AssertionError(), "Assertion"),
    ],
)
def test_what_a_part_needs_and_has_not_is_said_in_one_line(raised, said):
    with pytest.raises(ConfigError) as caught, said_in_one_line("the model", "MODEL.*"):
        raise raised
    start = f"the model cannot be built from MODEL.* ({said}Error: "
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is raised


def test_a_users_error_stays_as_it_is():
    with pytest.raises(ConfigError, match=r"^mine$"), said_in_one_line("the model", "MODEL.*"):
        raise ConfigError("mine")
