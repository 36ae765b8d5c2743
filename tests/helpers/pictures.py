"""Small image files, whole and damaged, for tests."""

import json

import numpy as np
from PIL import Image


def save_picture(path, width=24, height=16, orientation=None):
    """Save random pixels, which compress badly, so that half a file is half a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(sum(map(ord, path.name)))
    picture = Image.fromarray(rng.randint(0, 256, (height, width, 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    picture.save(path, **({} if orientation is None else {"exif": exif}))
    return path


def cut(path, share=0.6):
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def coco_contents(count=2, boxes=((1, 2, 10, 8),), classes=("cat", "dog"), **image_keys):
    """A COCO instances file of `count` images 24 x 16 named 1.png, ...; the boxes in each."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 24, "height": 16, **image_keys}
        for i in range(1, count + 1)
    ]
    annotations = [
        {"image_id": image["id"], "category_id": 1, "bbox": list(box), "area": 1, "iscrowd": 0}
        for image in images
        for box in boxes
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in enumerate(classes, start=1)],
    }


def write_coco(folder, contents, name="instances.json"):
    """Write a COCO file and the images it names; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in contents["images"]:
        save_picture(folder / image["file_name"], image["width"], image["height"])
    path = folder / name
    path.write_text(json.dumps(contents))
    return path


def object_xml(name, box, difficult):
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flag}<bndbox>{inner}</bndbox></object>"


def write_voc_image(folder, image_id, objects):
    """Write a picture of 40 x 30 and its XML file; objects are (name, corners, difficult)."""
    save_picture(folder / "JPEGImages" / f"{image_id}.jpg", 40, 30)
    path = folder / "Annotations" / f"{image_id}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    body = "".join(object_xml(*item) for item in objects)
    path.write_text(f"<annotation>{size}{body}</annotation>")
