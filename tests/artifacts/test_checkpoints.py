import pytest
import torch
from detectron2.modeling import build_model
from fvcore.common.checkpoint import PeriodicCheckpointer
from roi_samples import make_config
from torch import nn

from d2_ssod.artifacts import AtomicCheckpointer, RunFolder, load_phase_model
from d2_ssod.errors import ConfigError


@pytest.fixture
def checkpointer(tmp_path):
    return AtomicCheckpointer(nn.Linear(2, 3), str(tmp_path))


def test_checkpoints_are_those_of_detectron2(checkpointer, tmp_path):
    checkpointer.save("model_0000003", iteration=3)
    saved = torch.load(tmp_path / "model_0000003.pth")
    assert saved["iteration"] == 3
    assert torch.equal(saved["model"]["weight"], checkpointer.model.weight)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    assert checkpointer.has_checkpoint()
    other = AtomicCheckpointer(nn.Linear(2, 3), str(tmp_path))
    assert other.resume_or_load("", resume=True)["iteration"] == 3
    assert torch.equal(other.model.weight, checkpointer.model.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000003.pth"]


@pytest.mark.parametrize("name", ["model_0000001", "model_0000002"])
def test_a_checkpoint_that_fails_leaves_the_last_one_whole(
    checkpointer, tmp_path, monkeypatch, name
):
    """Written anew under the same name, or under the next."""
    checkpointer.save("model_0000001", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(data, file):
        file.write(b"half a")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpointer.save(name, iteration=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_periodic_checkpoints_are_removed_as_by_fvcore(checkpointer, tmp_path):
    periodic = PeriodicCheckpointer(checkpointer, period=1, max_to_keep=1)
    for iteration in range(3):
        periodic.step(iteration)
    assert [p.name for p in tmp_path.glob("*.pth")] == ["model_0000002.pth"]


@pytest.fixture
def cfg(tmp_path):
    cfg = make_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


def test_model_of_a_phase_is_the_one_that_it_ended_with(cfg):
    torch.manual_seed(0)
    models = [build_model(cfg) for _ in range(2)]
    for phase, model in enumerate(models):
        folder = RunFolder(cfg.OUTPUT_DIR).phase(phase).folder
        folder.mkdir()
        AtomicCheckpointer(model, str(folder)).save("model_final")
    for phase, model in enumerate(models):
        loaded = load_phase_model(cfg, phase)
        assert not any(module.training for module in loaded.modules())
        expected = model.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, expected[name]), name
    assert not torch.equal(*(next(model.parameters()) for model in models))


def test_model_of_a_phase_that_has_not_ended_names_the_file(cfg, tmp_path):
    (tmp_path / "phase_1").mkdir()
    (tmp_path / "phase_1" / "model_0000003.pth").touch()
    with pytest.raises(
        ConfigError, match=r"phase_1/model_final\.pth: .*phase 1 .*--resume"
    ) as info:
        load_phase_model(cfg, 1)
    assert "\n" not in str(info.value)
