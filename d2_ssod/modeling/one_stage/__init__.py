"""One-stage detectors.

ssd.py         torchvision's SSD as a meta-architecture
vgg.py         its VGG-16 as a backbone, and the weights that others' files have for it
retinanet.py   Detectron2's RetinaNet for labels that are not all certain
"""

from .retinanet import UncertaintyRetinaNet
from .ssd import SSD
from .vgg import SSDVGG16

__all__ = ["SSD", "SSDVGG16", "UncertaintyRetinaNet"]
