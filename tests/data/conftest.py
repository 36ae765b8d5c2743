import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import d2_ssod.data  # noqa: F401  registers what these tests must not undo


@pytest.fixture(autouse=True)
def restored_catalogs():
    """Forget the data sets that a test registers."""
    before = [(catalog, set(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalog, names in before:
        for name in set(catalog) - names:
            del catalog[name]
