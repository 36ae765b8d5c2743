import argparse
import logging
import math
import os
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from fvcore.common.checkpoint import PeriodicCheckpointer
from roi_samples import make_config
from torch import nn

from d2_ssod.artifacts import (
    AtomicCheckpointer,
    RunFolder,
    half_written_files,
    load_phase_model,
    record_training,
)
from d2_ssod.artifacts.checkpoint_files import check_readable
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


# What does not fit


def saved(folder, module, **changes):
    """Save a module with some of its tensors replaced, or, where None, left out."""
    state = {**module.state_dict(), **changes}
    state = {name: value for name, value in state.items() if value is not None}
    torch.save({"model": state}, folder / "model.pth")
    return str(folder / "model.pth")


def small():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"1.weight": torch.zeros(2, 3)}, r"1\.weight is \(2, 3\) in the file and \(1, 3\) in"),
        ({"1.bias": None}, r"1\.bias is missing"),
        ({"2.bias": torch.zeros(1)}, r"2\.bias is not of the model"),
        ({"0.bias": torch.tensor([0, math.nan, 1])}, r"0\.bias has values that are not finite"),
    ],
)
def test_a_model_that_must_fit_is_refused_otherwise(tmp_path, changes, message):
    path = saved(tmp_path, small(), **changes)
    with pytest.raises(ConfigError, match=f"model.pth.*{message}") as caught:
        AtomicCheckpointer(small(), must_fit=True).load(path)
    assert "\n" not in str(caught.value)


def test_a_start_from_elsewhere_says_what_is_used(tmp_path, caplog):
    path = saved(tmp_path, small(), **{"1.weight": torch.zeros(2, 3), "9.x": torch.zeros(1)})
    model = small()
    with caplog.at_level(logging.INFO, logger="d2_ssod"):
        AtomicCheckpointer(model).load(path)
    assert "3 of 4 tensors; of another shape, so at random: 1.weight; not used: 9.x" in caplog.text


def test_a_start_that_has_nothing_of_the_model_is_refused(tmp_path):
    path = saved(tmp_path, nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigError, match=r"model\.pth has nothing of the config's model"):
        AtomicCheckpointer(small()).load(path)


def test_what_normalization_layers_make_up_does_not_come_from_the_file(tmp_path):
    """Those of a file without their version are silently filled in."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    torch.save(
        {"model": {f"modelTeacher.{k}": v for k, v in model.state_dict().items()}},
        path := tmp_path / "m.pth",
    )
    with pytest.raises(ConfigError, match=r"nothing of the config.*but modelTeacher\.0\.weight"):
        AtomicCheckpointer(model).load(str(path))


@pytest.mark.parametrize(
    "content",
    [
        lambda state: {"state_dict": state, "meta": {"epoch": 3}},
        lambda state: {"model": state, "best": np.float64(0.3), "iteration": np.int64(5)},
        lambda state: {"model": {k: v.numpy() for k, v in state.items()}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    ],
    ids=["state_dict", "numpy's numbers", "numpy's arrays", "options"],
)
def test_files_of_other_projects_are_started_from(tmp_path, content):
    there, here = small(), small()
    torch.save(content(there.state_dict()), tmp_path / "m.pth")
    AtomicCheckpointer(here).load(str(tmp_path / "m.pth"))
    assert all(map(torch.equal, here.parameters(), there.parameters()))


def test_a_file_with_code_in_it_is_refused_by_its_name(tmp_path):
    torch.save({"model": small()}, tmp_path / "m.pth")
    with pytest.raises(
        ConfigError, match=r"m\.pth: .*code in it, torch\.nn\.\S+, which is not run"
    ):
        AtomicCheckpointer(small()).load(str(tmp_path / "m.pth"))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no archive"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.pth: cannot be read as a checkpoint") as caught:
        AtomicCheckpointer(small(), must_fit=True).load(str(path))
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.pth"
    saved(tmp_path, small())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"model\.pth: cannot be read as a checkpoint"):
        AtomicCheckpointer(small(), must_fit=True).load(str(path))


@pytest.mark.parametrize("must_fit", [False, True])
def test_a_checkpoint_with_a_byte_that_has_changed_is_named(tmp_path, must_fit):
    path = tmp_path / "model.pth"
    model = nn.Linear(64, 64)
    saved(tmp_path, model)
    content = bytearray(path.read_bytes())
    content[content.index(model.weight.detach().numpy().tobytes()) + 99] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"model\.pth: cannot be read .*Bad CRC-32 for file .*data"
    ):
        AtomicCheckpointer(nn.Linear(64, 64), must_fit=must_fit).load(str(path))


def test_files_that_are_no_archives_have_no_checksums(tmp_path):
    state = {"model": small().state_dict()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    arrays = {name: value.numpy() for name, value in state["model"].items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "d2"}))
    for name in ("old.pth", "zoo.pkl"):
        AtomicCheckpointer(small()).load(str(tmp_path / name))


def test_a_copy_is_named_of_the_model_of_a_phase_alone(tmp_path):
    folder = RunFolder(tmp_path)
    folder.phase(1).folder.mkdir()
    folder.best.touch()
    for name, is_said in (("model_final.pth", True), ("model_0000001.pth", False)):
        path = folder.phase(1).folder / name
        path.write_bytes(b"damaged")
        with pytest.raises(ConfigError) as info:
            check_readable(path)
        assert ("model_best.pth is a copy" in str(info.value)) == is_said


def test_weights_alone_are_a_model(tmp_path):
    """As Detectron2 takes them."""
    torch.save(small().state_dict(), tmp_path / "model.pth")
    check_readable(tmp_path / "model.pth")
    AtomicCheckpointer(small(), must_fit=True).load(str(tmp_path / "model.pth"))


def test_a_checkpoint_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path, small())
    finally:
        torch.serialization.set_crc32_options(True)
    AtomicCheckpointer(small(), must_fit=True).load(str(tmp_path / "model.pth"))


def test_weights_to_start_from_that_are_not_finite_are_named(tmp_path):
    weights = saved(tmp_path, small(), **{"1.weight": torch.full((1, 3), torch.nan)})
    with pytest.raises(
        ConfigError, match=r"model\.pth: 1\.weight has values that are not finite; n"
    ):
        AtomicCheckpointer(small()).load(weights)


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")

    saved(tmp_path, small())
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):
        AtomicCheckpointer(small(), must_fit=True).load(str(tmp_path / "model.pth"))


class Planted:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    torch.save({"model": small().state_dict(), "more": Planted()}, tmp_path / "model.pth")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        AtomicCheckpointer(small(), must_fit=True).load(str(tmp_path / "model.pth"))
    assert capsys.readouterr().out == ""


def test_model_of_a_phase_of_another_config_is_refused(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR).phase(0).folder
    folder.mkdir()
    AtomicCheckpointer(build_model(cfg), str(folder)).save("model_final")
    cfg.MODEL.ROI_HEADS.NUM_CLASSES += 1
    with pytest.raises(ConfigError, match=r"model_final\.pth does not fit .*cls_score"):
        load_phase_model(cfg, 0)


def test_what_a_kill_leaves_of_a_checkpoint_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "phase_1"
    folder.mkdir()
    checkpointer = AtomicCheckpointer(nn.Linear(2, 3), str(folder))
    checkpointer.save("model_0000001")
    with monkeypatch.context() as patch:  # as if the process were gone before the end
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(os, "replace", lambda *_: None)
        checkpointer.save("model_0000002")
    (left,) = half_written_files(tmp_path)
    assert left.name.startswith(".model_0000002.pth.")
    (tmp_path / ".model_best.pth.7.tmp").touch()
    assert len(half_written_files(tmp_path)) == 2
    (folder / ".predictions.json.17.tmp").touch()
    assert len(half_written_files(tmp_path)) == 3


def test_masks_of_infinities_are_no_divergence(tmp_path):
    model = nn.BatchNorm1d(3)
    model.register_buffer("mask", torch.full((2,), -math.inf))
    checkpointer = AtomicCheckpointer(model, str(tmp_path), must_fit=True)
    checkpointer.save("model_final")
    checkpointer.load(str(tmp_path / "model_final.pth"))
    model.running_var[1] = math.nan
    with pytest.raises(ConfigError, match="running_var has values that are not finite"):
        checkpointer.save("model_final")


@pytest.mark.parametrize("address", ["https://nowhere.invalid/a.pkl", "unknown://a.pkl"])
def test_weights_that_cannot_be_downloaded_are_named(checkpointer, address):
    with pytest.raises(ConfigError, match=f"^{address}: cannot be downloaded .*name the file$"):
        checkpointer.load(address)


def test_a_full_disk_is_said_as_one(checkpointer, tmp_path):
    """Also of a file that is begun: the limit is the system's."""
    checkpointer.model.register_buffer("large", torch.zeros(100_000))
    checkpointer.save("model_0000001")
    before = (tmp_path / "model_0000001.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/model_0000001\.pth'"):
            checkpointer.save("model_0000001")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000001.pth",
    ]


def test_a_phase_whose_end_was_deleted_goes_on_from_its_last_checkpoint(checkpointer, tmp_path):
    """As it is said to do with a damaged one."""
    for name in ("model_0000001", "model_0000003", "model_final"):
        checkpointer.save(name)
    (tmp_path / "model_final.pth").unlink()
    found = [os.path.basename(path) for path in checkpointer.usable_checkpoints()]
    assert found == ["model_0000003.pth", "model_0000001.pth"]


def test_a_model_whose_shapes_fit_another_config_is_refused_as_well(cfg, tmp_path):
    """Other anchors or pixels make no parameter of another shape."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    folder.phase(0).folder.mkdir()
    AtomicCheckpointer(build_model(cfg), str(folder.phase(0).folder)).save("model_final")
    record_training(cfg, 0, [], folder)
    load_phase_model(cfg, 0)
    cfg.MODEL.PIXEL_STD = [2.0, 2.0, 2.0]
    with pytest.raises(ConfigError, match=r"does not fit the config's model.*MODEL\.PIXEL_STD"):
        load_phase_model(cfg, 0)


def test_a_kill_while_the_last_checkpoint_is_noted_leaves_the_note_whole(tmp_path, monkeypatch):
    checkpointer = AtomicCheckpointer(nn.Linear(2, 3), str(tmp_path))
    checkpointer.save("model_0000001")
    monkeypatch.setattr(os, "replace", lambda *_: None)  # as if the process were gone before it
    checkpointer.save("model_0000002")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
