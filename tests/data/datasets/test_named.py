import pytest
from catalogs import restored_catalogs
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_ssod.config import add_ssod_config
from d2_ssod.data.datasets import NamedDataSets, register_files
from d2_ssod.data.datasets.catalog import DataSet
from d2_ssod.errors import ConfigError

RECORDS = [{"file_name": "/a.png", "image_id": 1, "height": 4, "width": 4, "annotations": []}]


@pytest.fixture
def cfg():
    cfg, read = get_cfg(), []

    def load(name):
        read.append(name)
        return [dict(record) for record in RECORDS]

    add_ssod_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED = ("named_a",), ("named_b", "named_c")
    cfg.DATASETS.VAL, cfg.DATASETS.TEST = ("named_d",), ("named_d",)
    with restored_catalogs():
        for name in ("named_a", "named_b", "named_c", "named_d"):
            DatasetCatalog.register(name, lambda name=name: load(name))
            MetadataCatalog.get(name).set(thing_classes=[f"cat of {name}"])
        yield cfg, read


def test_a_data_set_of_two_keys_is_read_once(cfg):
    cfg, read = cfg
    sets = NamedDataSets.read(cfg)
    assert read == ["named_a", "named_b", "named_c", "named_d"]
    assert [place for place, _ in sets.placed("TEST", "VAL")] == [
        "DATASETS.VAL (named_d)",
        "DATASETS.TEST (named_d)",
    ]
    assert sets.thing_classes == ["cat of named_a"]


def test_unlabeled_images_have_ids_of_their_own(cfg):
    cfg, read = cfg
    sets = NamedDataSets.read(cfg, ["UNLABELED"]).usable()
    assert read == sets.names("UNLABELED") == ["named_b", "named_c"]
    assert [image["image_id"] for image in sets.of_key("UNLABELED")] == [1, 1]
    assert [image["image_id"] for image in sets.unlabeled] == [1, 2]


def test_what_cannot_be_used_is_raised_when_asked_for(cfg):
    class Damaged:
        def read(self):
            found = DataSet([])
            found.findings.error("named_e", "boxes", "has no boxes", "draw some")
            return found

    cfg, _ = cfg
    register_files("named_e", Damaged())
    cfg.DATASETS.VAL = ("named_e",)
    sets = NamedDataSets.read(cfg)
    with pytest.raises(ConfigError, match="named_e: has no boxes"):
        sets.usable()
