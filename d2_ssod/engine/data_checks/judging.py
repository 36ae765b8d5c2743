"""What models are judged on."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_ssod.data import checks
from d2_ssod.data.datasets import DataSource
from d2_ssod.data.datasets.named import JUDGING, NamedDataSets, place_of
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import ground_truth, read_voc_truth

from .registered import check_registered


def check_judging_sets(cfg: CfgNode, thing_classes: Sequence[str]) -> dict[str, list[dict]]:
    """Check what finished models are to be judged on, and read it.

    Args:
        cfg: of a run.
        thing_classes: of its models.

    Returns:
        The images of each data set of ``DATASETS.VAL`` and ``DATASETS.TEST``.

    Raises:
        ConfigError: one is missing, has other classes, or pictures or boxes that cannot be used.
    """
    check_registered(cfg, JUDGING)
    sets = NamedDataSets.read(cfg, JUDGING)
    findings, classes = Findings(), {"the models": list(thing_classes)}
    for place, found in sets.placed(*JUDGING):
        findings.extend(found.findings)
        classes[place] = found.thing_classes
    checks.check_same_classes(classes, findings)
    raise_first(findings)
    files = PictureFiles()
    for place, found in sets.placed(*JUDGING):
        checks.check_not_empty(found.images, place, findings)
        checks.check_annotations(found.images, len(thing_classes), place, findings)
        checks.check_images(found.images, files, place, findings)
    check_truth_files(sets, findings)
    raise_first(findings)
    return {name: found.images for (_, name), found in sets.named.items()}


def check_truth_files(sets: NamedDataSets, findings: Findings) -> None:
    """Check the files that judge results, where others' functions give the images."""
    for (key, name), found in sets.named.items():
        is_read_here = isinstance(DatasetCatalog[name], DataSource)
        if key not in JUDGING or is_read_here or not found.thing_classes:
            continue
        if MetadataCatalog.get(name).get("evaluator_type") == "pascal_voc":
            _check_voc_truth(found.images, name, place_of(key, name), findings)
        else:
            _check_coco_truth(name, place_of(key, name), findings)


def _check_coco_truth(name: str, place: str, findings: Findings) -> None:
    """Check that there is what results will be compared with."""
    try:
        ground_truth(name)
    except ConfigError as error:
        kind, remedy = "COCO files that cannot be read", "or take json_file out of the metadata"
        findings.error(place, kind, str(error), remedy)


def _check_voc_truth(images: list[dict], name: str, place: str, findings: Findings) -> None:
    """Check VOC's XML files, in which an image is found by its id."""
    try:
        truth = read_voc_truth(name)
    except ConfigError as error:
        kind, remedy = "VOC files that cannot be read", "or set evaluator_type to 'coco'"
        findings.error(place, kind, str(error), remedy)
        return
    findings.extend(finding for finding in truth.findings if finding.level == "error")
    names = {image["image_id"] for image in truth.images}
    for image in images:
        if str(image["image_id"]) not in names:
            findings.error(
                place,
                "image ids that are no names of VOC's",
                f"image_id {image['image_id']!r} ({image['file_name']}) is not among the images of "
                f"{MetadataCatalog.get(name).dirname}, split {MetadataCatalog.get(name).split!r}",
                "give images the names of their XML files, or set evaluator_type to 'coco'",
            )
