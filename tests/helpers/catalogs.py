"""Detectron2's catalogs of data sets, as a test wants them."""

import contextlib

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@contextlib.contextmanager
def restored_catalogs():
    """Forget the data sets that are registered while the context lasts."""
    before = [(catalog, set(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalog, names in before:
        for name in set(catalog) - names:
            del catalog[name]


@contextlib.contextmanager
def registered_anew(names, register, root):
    """Data sets that ``register(root)`` registers, below another folder while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delitem(DatasetCatalog.data, name)
            patch.delitem(MetadataCatalog.data, name)
        register(str(root))
        yield root
        for name in names:
            del DatasetCatalog[name], MetadataCatalog[name]
