import pytest
import runs
import torch


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Entries of ``SSOD.REGISTER``, whose names can stand for one folder only in a process."""
    return runs.make_data(tmp_path_factory.mktemp("tiny") / "digit_scenes")


@pytest.fixture
def one_thread():
    """As the command is run here; sums of several threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
