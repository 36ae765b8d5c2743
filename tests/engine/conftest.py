import pytest
import torch


@pytest.fixture
def one_thread():
    """As the command is run here; sums of several threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
