import pytest
import runs


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Entries of ``SSOD.REGISTER``, whose names can stand for one folder only in a process."""
    return runs.make_data(tmp_path_factory.mktemp("tiny") / "digit_scenes")
