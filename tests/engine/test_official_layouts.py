"""The shipped configs of VOC and COCO, on miniature copies of the official layouts."""

import json

import pytest
import runs
from detectron2.data import MetadataCatalog
from pictures import save_picture

import d2_ssod.data  # noqa: F401  registers the names

# A detector that a CPU trains in seconds; data, schedule and heads are the config's.
SMALL = {
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "build_small_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]],
    "MODEL.RPN.IN_FEATURES": ["p3"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2"],
    "INPUT.MIN_SIZE_TRAIN": [64],
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
}


def voc_xml(classes):
    objects = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>0"
        f"</difficult><bndbox><xmin>{5 + 20 * n}</xmin><ymin>5</ymin><xmax>{24 + 20 * n}</xmax>"
        "<ymax>40</ymax></bndbox></object>"
        for n, name in enumerate(classes)
    )
    size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write_voc(root):
    for year, split in ((2007, "trainval"), (2007, "test"), (2012, "trainval")):
        folder = root / f"VOC{year}"
        for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        names = [f"{split}_{number}" for number in range(4)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            save_picture(folder / "JPEGImages" / f"{name}.jpg", 80, 60)
            (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(["cat", "dog", "car"]))


def write_coco(root):
    metadata = MetadataCatalog.get("coco_2017_val")
    ids = metadata.thing_dataset_id_to_contiguous_id
    categories = [{"id": i, "name": metadata.thing_classes[n]} for i, n in ids.items()]
    files = {
        "instances_valminusminival2014.json": "val2014",
        "instances_train2014.json": "train2014",
        "instances_minival2014.json": "val2014",
    }
    for number, (file_name, folder) in enumerate(files.items()):
        images = [
            {"id": i, "file_name": f"{file_name[:-5]}_{i}.jpg", "width": 80, "height": 60}
            for i in range(10 * number + 1, 10 * number + 5)
        ]
        annotations = [
            {"id": image["id"], "image_id": image["id"], "category_id": 90, "iscrowd": 0}
            | {"bbox": [5, 5, 30, 40], "area": 900.5, "segmentation": [[5, 5, 35, 5, 35, 45]]}
            for image in images
        ]
        for image in images:
            save_picture(root / "coco" / folder / image["file_name"], 80, 60)
        path = root / "coco" / "annotations" / file_name
        path.parent.mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(content))


# The same for SSD, whose augmentations are the config's, too.
SMALL_SSD = {
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "build_small_fpn_backbone",
    "MODEL.SSD.SIZE": 64,
    "MODEL.SSD.SCALES": [0.3, 0.5, 0.7],
    "MODEL.SSD.ASPECT_RATIOS": [[2], [2]],
    "MODEL.SSD.STEPS": [],
    "SOLVER.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
}


def run_config(tmp_path, config, write, options):
    """Run a shipped config with overrides; its summary."""
    write(tmp_path)
    pairs = [str(part) for pair in options.items() for part in pair]
    path = runs.CONFIG_FILE.with_name(f"{config}.yaml")
    result = runs.run_command(
        ["--config-file", str(path), "--num-gpus", "0", "OUTPUT_DIR", str(tmp_path / "o"), *pairs],
        environment={"DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert "Traceback" not in result.stderr
    summary = runs.summary_of(tmp_path / "o")
    assert {"AP", "AP50"} <= set(summary["phases"][0]["metrics"])
    assert summary["dataset"] == ("voc_2007_test" if write is write_voc else "coco_2014_minival")
    return summary


@pytest.mark.parametrize(
    ("config", "write", "phases"),
    [
        ("voc_two_phase", write_voc, 2),
        ("voc_data_distillation", write_voc, 1),
        ("coco_35_two_phase", write_coco, 2),
    ],
)
def test_a_shipped_config_runs_on_its_layout(tmp_path, config, write, phases):
    epochs = [1] * (phases + 1)
    schedule = {"SSOD.SCHEDULE.EPOCHS": epochs, "SSOD.SCHEDULE.STEP_EPOCHS": epochs}
    few = {"TEST.AUG.MIN_SIZES": [48, 64]}
    summary = run_config(tmp_path, config, write, {**SMALL, **schedule, **few})
    assert [phase["labeled_images"] for phase in summary["phases"]] == [4] * (phases + 1)


@pytest.mark.parametrize(
    ("config", "phases"), [("voc_ssd300_two_phase", 2), ("voc_csd", 0), ("voc_isd", 0)]
)
def test_a_config_of_ssd_runs_on_vocs_layout(tmp_path, config, phases):
    steps = [2] * (phases + 1)
    schedule = {"SSOD.SCHEDULE.MAX_ITER": steps, "SSOD.SCHEDULE.STEPS": [[1]] * (phases + 1)}
    summary = run_config(tmp_path, config, write_voc, {**SMALL_SSD, **schedule})
    assert len(summary["phases"]) == phases + 1
    assert "AP50/coco" in summary["phases"][0]["metrics"]
