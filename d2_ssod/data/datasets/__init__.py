"""Reading data sets into Detectron2's dicts, and registering them by name.

coco.py       COCO instances files
voc.py        Pascal VOC's XML files
yolo.py       YOLO's text files
folder.py     pictures without annotations
boxes.py      boxes that cannot be used
catalog.py    a data set with what was found in it, registered in Detectron2's catalog
named.py      all that a config names
records.py    what others' functions give
builtin.py    COCO's and VOC's official splits, by name
registry.py   a user's own, from ``SSOD.REGISTER``
"""

from .builtin import datasets_root, missing_paths, register_builtin
from .catalog import (
    DataSet,
    DataSource,
    category_ids_of,
    is_of_detectron2,
    read_data_set,
    register_files,
    with_unique_ids,
)
from .coco import CocoFile
from .folder import ImageFolders
from .named import NamedDataSets
from .registry import Naming, register_available, register_entry, register_from_config
from .voc import VocFolder
from .yolo import YoloSplit

__all__ = [
    "CocoFile",
    "DataSet",
    "DataSource",
    "ImageFolders",
    "NamedDataSets",
    "Naming",
    "VocFolder",
    "YoloSplit",
    "category_ids_of",
    "datasets_root",
    "is_of_detectron2",
    "missing_paths",
    "read_data_set",
    "register_available",
    "register_builtin",
    "register_entry",
    "register_files",
    "register_from_config",
    "with_unique_ids",
]
