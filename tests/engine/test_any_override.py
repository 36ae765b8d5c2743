"""Any value of any key is trained with, or refused in one line before training begins."""

import os

import pytest
import runs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from d2_ssod.config import flat_keys
from d2_ssod.engine import build_config, default_argument_parser
from d2_ssod.engine.configs.files import read_config
from d2_ssod.engine.configs.schedule import phase_config
from d2_ssod.engine.training.phase_trainer import PhaseTrainer
from d2_ssod.errors import ConfigError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 25))
KEYS = sorted(key for key, _ in flat_keys(read_config(str(runs.CONFIG_FILE))))
VALUES = [
    *("-1", "0", "1e999", "nan", "None", "''", "[]", "{}", "[[]]", "True", "10**9", "9" * 21),
    *("(1,2,3)", "'../x'", "x", "[nan]", "-0.5", "[['a']]", '"\\n"'),
]
LABELED = [{"file_name": "a.png", "image_id": 1, "width": 8, "height": 8, "annotations": []}]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Paths of any kind are tried for OUTPUT_DIR, too."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("overrides", [(), ("SOLVER.AMP.ENABLED", "True")])
def test_the_config_itself_is_built(data, tmp_path, overrides):
    assert build(data, tmp_path, overrides).max_iter == runs.PHASE_LENGTHS[0]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(key=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
@example(key="DATASETS.TRAIN", value="[[]]")
@example(key="DATASETS.TEST", value="None")
@example(key="SOLVER.IMS_PER_BATCH", value="None")
@example(key="SOLVER.LR_SCHEDULER_NAME", value="x")
@example(key="SOLVER.BASE_LR_END", value="1e999")
@example(key="INPUT.MIN_SIZE_TRAIN_SAMPLING", value="x")
@example(key="MODEL.ROI_BOX_HEAD.NUM_FC", value="0")
@example(key="SEED", value="-1")
@example(key="MODEL.RESNETS.NORM", value='"\\n"')
def test_any_value_of_any_key(data, tmp_path, key, value):
    try:
        build(data, tmp_path, (key, value))
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


def build(data, output, overrides):
    """Check the config and build the trainer of phase 0, as a run does."""
    argv = [*runs.arguments(data, output), *overrides]
    cfg = build_config(default_argument_parser().parse_args(argv), 1)
    return PhaseTrainer(phase_config(cfg, 0, len(LABELED), 0), 0, LABELED)
