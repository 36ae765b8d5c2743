import catalogs
import pytest

import d2_ssod.data  # noqa: F401  registers what these tests must not undo


@pytest.fixture(autouse=True)
def restored_catalogs():
    """Forget the data sets that a test registers."""
    with catalogs.restored_catalogs():
        yield
