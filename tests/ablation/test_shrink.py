import json

import pytest
from PIL import Image

from ablation.digits_folder import lay_out
from ablation.shrink import shrink_folder
from d2_ssod.demo.digit_scenes import SPLITS


def test_pictures_and_boxes_become_smaller_and_settings_stay(tmp_path):
    data, output = tmp_path / "digits", tmp_path / "small"
    lay_out(data, dict.fromkeys(SPLITS, 2))
    shrink_folder(data, output, longest=32)
    assert (output / "settings.json").read_text() == (data / "settings.json").read_text()
    before, after = (
        json.loads((folder / "unlabeled_truth.json").read_text()) for folder in (data, output)
    )
    for old, new in zip(before["images"], after["images"], strict=True):
        with Image.open(output / "unlabeled" / new["file_name"]) as picture:
            assert picture.size == (new["width"], new["height"])
        assert max(picture.size) == 32
        assert old["width"] == 128
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert new["bbox"] == pytest.approx([edge / 4 for edge in old["bbox"]])
