"""One-stage detectors that Detectron2 has not.

ssd.py   torchvision's SSD as a meta-architecture
vgg.py   its VGG-16 as a backbone, and the weights that others' files have for it
"""

from .ssd import SSD
from .vgg import SSDVGG16

__all__ = ["SSD", "SSDVGG16"]
