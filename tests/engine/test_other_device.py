"""Training, labeling and evaluation keep tensors where they belong, as a GPU would demand."""

import pytest
import runs
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch has no devices that are written in Python",
)

LAUNCHER = (str(runs.ROOT / "tests" / "helpers" / "pretended_device.py"),)
SHORT = {"SSOD__NUM_PHASES": 1, "SSOD__SCHEDULE__MAX_ITER": [16, 3]}
ONE_PHASE = {"SSOD__SCHEDULE__MAX_ITER": [3]}
SYSTEMS = {
    "cascade with weights": (
        "digits_two_phase.yaml",
        {
            **SHORT,
            "MODEL__ROI_HEADS__NAME": "UncertaintyCascadeROIHeads",
            "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
        },
    ),
    "tiers of a mean teacher": (
        "digits_best.yaml",
        {**SHORT, "SSOD__TEACHER__ENABLED": True, "DATASETS__VAL": [runs.TEST]},
    ),
    "SSD": ("digits_ssd.yaml", {**SHORT, "SSOD__LABELS": "tiers"}),
    "ISD": ("digits_isd.yaml", ONE_PHASE),
    "Proposal Learning": ("digits_proposal_learning.yaml", ONE_PHASE),
}


@pytest.mark.parametrize(("config", "keys"), SYSTEMS.values(), ids=SYSTEMS)
def test_a_whole_run_mixes_no_devices(data, tmp_path, config, keys):
    argv = runs.arguments(
        data, tmp_path, "--config-file", str(runs.ROOT / "configs" / config), **keys
    )
    runs.run_command(argv, launcher=LAUNCHER)
    log = runs.log_of(tmp_path)
    assert "a device that is none" in log
    assert len(runs.summary_of(tmp_path)["phases"]) == len(keys["SSOD__SCHEDULE__MAX_ITER"])
