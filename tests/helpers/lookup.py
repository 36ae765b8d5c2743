"""A tiny test set with known answers, and detectors that look up what they see in an image."""

import json

import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from torch import nn

HEIGHT, WIDTH = 80, 100
CAT, DOG = 0, 1
# One object in each image, 20 x 20 pixels.
OBJECT = (10, 10, 30, 30)
IMAGES = [
    {"image_id": 1, "difficulty": 0.2},
    {"image_id": 2, "difficulty": 0.5},
    {"image_id": 3, "difficulty": 0.9},
]
CLASS_OF_IMAGE = {1: CAT, 2: CAT, 3: DOG}
# An object of a class of two, found without mistake: of COCO's 101 recall points 0, 0.01, ..., 1
# those up to 0.5 have precision 1.
HALF = 100 * 51 / 101


class LookUp(nn.Module):
    """Sees in each image the given (box, score, class) rows."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.calls = 0

    def forward(self, inputs):
        assert not self.training
        self.calls += 1
        return [{"instances": instances(self.seen.get(i["image_id"], []))} for i in inputs]


def instances(rows):
    return Instances(
        (HEIGHT, WIDTH),
        pred_boxes=Boxes(torch.tensor([box for box, _, _ in rows]).float().reshape(-1, 4)),
        scores=torch.tensor([score for _, score, _ in rows]).float(),
        pred_classes=torch.tensor([number for _, _, number in rows], dtype=torch.int64),
    )


def finding(*image_ids, score=0.9, shift=0):
    """A detector that finds the objects of these images, ``shift`` pixels to the right."""
    x1, y1, x2, y2 = OBJECT
    box = (x1 + shift, y1, x2 + shift, y2)
    return LookUp({i: [(box, score, CLASS_OF_IMAGE[i])] for i in image_ids})


def batches(image_ids=(1, 2, 3)):
    """What a loader gives, one image at a time."""
    return [[{"image_id": i, "height": HEIGHT, "width": WIDTH}] for i in image_ids]


def write_coco(folder):
    """The test set as a COCO file; category 4 is the cat, 2 the dog."""
    x1, y1, x2, y2 = OBJECT
    path = folder / "ground_truth.json"
    content = {
        "images": [
            {"id": i["image_id"], "file_name": f"{i['image_id']}.png", "width": WIDTH}
            | {"height": HEIGHT}
            for i in IMAGES
        ],
        "categories": [{"id": 2, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": {CAT: 4, DOG: 2}[kind],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (image_id, kind) in enumerate(CLASS_OF_IMAGE.items(), start=1)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def register_coco(path, name="lookup_test"):
    """Register the test set's metadata, replacing that of an earlier test."""
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(
        evaluator_type="coco",
        json_file=str(path),
        thing_classes=["cat", "dog"],
        thing_dataset_id_to_contiguous_id={4: CAT, 2: DOG},
    )
    return name
