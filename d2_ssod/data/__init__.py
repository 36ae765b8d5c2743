"""From files to batches; importing this registers the built-in data sets by name.

datasets/         reading and registering data sets
checks.py         what is wrong with them, said before training
images.py         looking at picture files
augmentation.py   the augmentations of ``SSOD.AUG``
mapper.py         from a data set dict to what a model trains on
loader.py         batches for training and inference
"""

from .datasets import datasets_root, register_builtin, register_from_config

__all__ = ["datasets_root", "register_builtin", "register_from_config"]

register_builtin(datasets_root())
