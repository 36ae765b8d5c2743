"""Reading data sets into Detectron2's dicts, and registering them by name.

coco.py       COCO instances files
voc.py        PASCAL VOC
folder.py     a folder of pictures without annotations
builtin.py    COCO's and VOC's official splits, by name
registry.py   a user's own, from ``SSOD.REGISTER``
"""

from .builtin import datasets_root, register_builtin, register_lazily
from .coco import load_coco
from .folder import load_image_folder
from .registry import register_from_config
from .voc import load_voc_labeled, load_voc_unlabeled

__all__ = [
    "datasets_root",
    "load_coco",
    "load_image_folder",
    "load_voc_labeled",
    "load_voc_unlabeled",
    "register_builtin",
    "register_from_config",
    "register_lazily",
]
