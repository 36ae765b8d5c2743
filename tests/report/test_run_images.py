"""Whose predictions are whose, where data sets count for themselves."""

from made_run import make_run
from pictures import coco_contents, write_coco
from samples import detections

from d2_ssod.artifacts import RunFolder, save_predictions
from d2_ssod.data.datasets import register_from_config
from d2_ssod.report.collect import collect
from d2_ssod.report.images import RunImages


def test_labeled_images_have_the_ids_that_they_were_predicted_by(tmp_path):
    cfg = make_run(tmp_path)
    entries = []
    for name in ("first", "second"):
        contents = coco_contents(2)
        if name == "first":  # nothing is on its first image, which is not trained on
            contents["annotations"] = contents["annotations"][1:]
        file = write_coco(tmp_path / name, contents)
        entries.append({"NAME": f"ids_{name}", "JSON": str(file), "IMAGES": str(file.parent)})
    register_from_config(entries, "SSOD.REGISTER")
    cfg.DATASETS.TRAIN = ("ids_first", "ids_second")
    found = {n: detections((n, 0, 10, 10, 0.9, 0)) for n in (1, 2, 3)}
    save_predictions(RunFolder(cfg.OUTPUT_DIR).phase(2).labeled_predictions, found, [1, 2])
    images = RunImages(collect(cfg))
    names = {
        int(of_image.boxes[0, 0]): "/".join(image["file_name"].rsplit("/", 2)[1:])
        for image, of_image in images.on_labeled.values()
    }
    assert names == {1: "first/2.png", 2: "second/1.png", 3: "second/2.png"}
    assert images.run.problems == []
