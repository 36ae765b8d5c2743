import pytest
import torch
from fvcore.common.checkpoint import PeriodicCheckpointer
from torch import nn

from d2_ssod.artifacts.checkpoints import AtomicCheckpointer


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
