"""From files to batches; importing this registers the built-in data sets by name.

datasets/            reading and registering data sets
findings.py          what is wrong or odd, gathered
checks.py            what may be wrong with data sets, said before training
annotation_boxes.py  the boxes of annotations, and of all images at once
box_checks.py        boxes that are implausible as a whole
statistics.py        sizes, shapes and numbers of objects, and the anchors that fit
objects.py           the objects of images, and which images are trained on
images.py            looking at a picture file
picture_files.py     looking at many, each once
presence.py          whether they are there at all
seen_pictures.py     which of them were found good before
augmentation.py      the augmentations of ``SSOD.AUG``
mapper.py            from a data set dict to what a model trains on
loader.py            batches for training and inference
workers.py           which signals the processes that load them obey
"""

from .datasets import datasets_root, read_data_set, register_builtin, register_from_config

__all__ = ["datasets_root", "read_data_set", "register_builtin", "register_from_config"]

register_builtin(datasets_root())
