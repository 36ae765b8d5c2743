"""Augmentations: what they change, and where boxes are afterwards."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.utils.env import seed_all_rng
from PIL import Image
from runs import bare_config
from torchvision.ops import box_iou

from d2_ssod.data.augmentation import (
    RandomExpand,
    RandomExtent,
    RandomIoUCrop,
    RandomPhotometric,
    ShrinkLarge,
    StrongAugmentation,
    build_augmentations,
)


def picture(height=40, width=60, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)


def test_image_lies_on_the_canvas_and_its_boxes_with_it():
    image, places = picture(), set()
    for _ in range(20):
        given = T.AugInput(image, boxes=np.array([[10.0, 5.0, 30.0, 25.0]]))
        RandomExpand(4.0, fill=99)(given)
        height, width = given.image.shape[:2]
        assert 40 <= height <= 160
        assert 60 <= width <= 240
        x0, y0, x1, y1 = given.boxes[0].astype(int)
        places.add(((x0 - 10) / max(width - 60, 1), (y0 - 5) / max(height - 40, 1)))
        assert (given.image[y0:y1, x0:x1] == image[5:25, 10:30]).all()
        assert given.image.sum(dtype=int) - image.sum(dtype=int) == 3 * 99 * (
            height * width - 40 * 60
        )
    assert min(x for x, _ in places) < 0.2 < 0.8 < max(x for x, _ in places)
    assert min(y for _, y in places) < 0.2 < 0.8 < max(y for _, y in places)


def test_sides_of_the_canvas_grow_by_one_factor_up_to_the_greatest():
    ratios = []
    for _ in range(200):
        given = T.AugInput(picture(100, 100))
        RandomExpand(4.0, fill=0)(given)
        ratios.append(given.image.shape[0] / 100)
        assert given.image.shape[0] == given.image.shape[1]
    assert min(ratios) < 1.2
    assert max(ratios) > 3.8


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_colors_change_and_the_shape_does_not(image_format):
    image = picture(channels=1 if image_format == "L" else 3)
    changed = []
    for seed in range(20):
        torch.manual_seed(seed)
        given = T.AugInput(image)
        RandomPhotometric(image_format)(given)
        assert given.image.shape == image.shape
        assert given.image.dtype == np.uint8
        changed.append((given.image != image).any())
    assert any(changed)


def test_photometric_is_a_function_of_torchs_seed():
    def once():
        torch.manual_seed(5)
        given = T.AugInput(picture())
        RandomPhotometric("BGR")(given)
        return given.image

    assert (once() == once()).all()


def test_bgr_is_changed_as_rgb_is():
    image = picture()
    results = []
    for given, image_format in ((image, "RGB"), (image[:, :, ::-1], "BGR")):
        torch.manual_seed(11)
        each = T.AugInput(np.ascontiguousarray(given))
        RandomPhotometric(image_format)(each)
        results.append(each.image)
    assert (results[0] == results[1][:, :, ::-1]).all()


def test_those_of_the_config_are_built_in_ssds_order():
    cfg = bare_config("output")
    assert build_augmentations(cfg) == []
    cfg.SSOD.AUG.PHOTOMETRIC = True
    cfg.SSOD.AUG.EXPAND = 4.0
    cfg.SSOD.AUG.IOU_CROP = True
    cfg.MODEL.PIXEL_MEAN = [90.0, 100.0, 110.0]
    photometric, expand, crop = build_augmentations(cfg)
    assert isinstance(photometric, RandomPhotometric)
    assert isinstance(crop, RandomIoUCrop)
    assert (expand.prob, expand.aug.max_ratio, expand.aug.fill) == (0.5, 4.0, 100.0)


def large_picture(cfg):
    """Pixels of a smooth picture of 3 million, what is done to them, and a box on it."""
    cfg.SSOD.AUG.COLOR, cfg.SSOD.AUG.SCALE, cfg.SSOD.AUG.SHIFT = 0.2, (0.8, 1.2), 0.1
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((2000, 1500), Image.Resampling.BICUBIC))
    return pixels, build_augmentations(cfg), np.array([[400.0, 300.0, 900.0, 1100.0]])


def test_large_pictures_are_made_smaller_first_and_end_the_same():
    cfg = bare_config("output")
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (200,), 400
    pixels, (shrink, *others), boxes = large_picture(cfg)
    assert (shrink.short, shrink.most) == (312, 625)  # 1.25 / 0.8 of these
    resize = T.ResizeShortestEdge(200, 400)
    ends = []
    for augmentations in ([shrink, *others], others):
        seed_all_rng(0)
        given = T.AugInput(pixels, boxes=boxes.copy())
        T.AugmentationList([*augmentations, resize])(given)
        ends.append(given)
    smaller, direct = ends
    assert smaller.image.shape == direct.image.shape
    assert smaller.boxes == pytest.approx(direct.boxes, abs=1)
    assert np.abs(smaller.image.astype(float) - direct.image).mean() < 1.5


def test_pictures_that_are_not_large_or_are_cut_stay_as_they_are():
    cfg = bare_config("output")
    cfg.INPUT.MIN_SIZE_TRAIN = (200,)
    pixels, (shrink, *_), _ = large_picture(cfg)
    assert isinstance(shrink.get_transform(pixels), T.ResizeTransform)
    assert isinstance(shrink.get_transform(pixels[:900]), T.NoOpTransform)
    shrink.short = shrink.most = 2000
    assert isinstance(shrink.get_transform(pixels), T.NoOpTransform)
    for key in ("INPUT.CROP.ENABLED", "SSOD.AUG.IOU_CROP"):
        cut = cfg.clone()
        cut.merge_from_list([key, True])
        assert not any(isinstance(a, ShrinkLarge) for a in build_augmentations(cut))
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)  # nothing is resized
    assert not any(isinstance(a, ShrinkLarge) for a in build_augmentations(cfg))


def test_large_pictures_keep_the_details_of_the_largest_size_that_is_trained():
    cfg = bare_config("output")
    cfg.SSOD.AUG.COLOR = 0.2
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (480, 800, 640), 1333
    shrink = build_augmentations(cfg)[0]
    assert (shrink.short, shrink.most) == (1000, 1666)  # 1.25 times 800 and 1333


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1)])
def test_of_a_picture_of_one_row_something_is_left(height, width):
    """Detectron2's own leaves nothing of it when it is made smaller."""
    for _ in range(50):
        augmented = T.AugInput(picture(height, width), boxes=np.array([[0.0, 0, width, height]]))
        RandomExtent((0.8, 1.2), (0.2, 0.2))(augmented)
        assert min(augmented.image.shape) >= 1
        assert np.isfinite(augmented.boxes).all()


OBJECTS = np.array([[4.0, 4, 24, 28], [30, 20, 56, 38], [2, 30, 10, 38]])


def cut_outs(boxes, count=400, **keys):
    """Parts that are drawn, XYXY (None: the whole picture), and the boxes that are left in each."""
    for _ in range(count):
        given = T.AugInput(picture(), boxes=boxes.copy())
        transform = RandomIoUCrop(**keys)(given)
        if isinstance(transform, T.NoOpTransform):
            yield None, given.boxes
        else:
            x0, y0 = transform.x0, transform.y0
            assert given.image.shape[:2] == (transform.h, transform.w)
            assert (given.image == picture()[y0 : y0 + transform.h, x0 : x0 + transform.w]).all()
            yield np.array([x0, y0, x0 + transform.w, y0 + transform.h]), given.boxes


def test_cut_outs_have_the_objects_whose_center_is_in_them():
    parts = [(part, boxes) for part, boxes in cut_outs(OBJECTS) if part is not None]
    assert len(parts) > 250  # six of seven draws, of which some end as others
    for part, boxes in parts:
        centers = (OBJECTS[:, :2] + OBJECTS[:, 2:]) / 2
        inside = ((centers > part[:2]) & (centers < part[2:])).all(1)
        assert inside.any()
        assert (boxes[~inside] == 0).all()
        moved = OBJECTS[inside] - np.tile(part[:2], 2)
        sides = np.tile(part[2:] - part[:2], 2)
        assert boxes[inside].clip(0, sides) == pytest.approx(moved.clip(0, sides))


@pytest.mark.parametrize("min_iou", [0.1, 0.5, 0.9])
def test_cut_outs_reach_far_enough_into_one_object(min_iou):
    best = []
    large = np.array([[5.0, 5, 50, 38], [1, 1, 6, 6]])  # of which no part has both by so much
    augmentation = RandomIoUCrop((min_iou,))
    augmentation.min_ious = (min_iou,)
    for _ in range(30):
        transform = augmentation.get_transform(picture(), large)
        part = np.array([transform.x0, transform.y0, transform.w, transform.h], dtype=float)
        part[2:] += part[:2]
        best.append(box_iou(torch.tensor(part[None]), torch.from_numpy(large)).max().item())
        sides = part[2:] - part[:2]
        assert max(sides) <= 2 * min(sides)
        assert (sides >= np.floor([0.3 * 60, 0.3 * 40])).all()
    assert min(best) >= min_iou


@pytest.mark.parametrize("height", [1, 40])
def test_pictures_without_objects_are_cut_out_anywhere(height):
    augmentation = RandomIoUCrop()
    for _ in range(50):
        transform = augmentation.get_transform(picture(height), np.zeros((0, 4)))
        assert min(transform.apply_image(picture(height)).shape) > 0


def test_changes_of_color_and_place_are_those_of_their_keys():
    cfg = bare_config("output")
    cfg.SSOD.AUG.COLOR, cfg.INPUT.MIN_SIZE_TRAIN = 0.25, (0,)
    of_colors = [T.RandomBrightness, T.RandomContrast, T.RandomSaturation]
    found = build_augmentations(cfg)
    assert list(map(type, found)) == of_colors
    assert {(a.intensity_min, a.intensity_max) for a in found} == {(0.75, 1.25)}
    cfg.INPUT.FORMAT = "L"
    assert list(map(type, build_augmentations(cfg))) == of_colors[:2]  # of grey, two
    cfg.SSOD.AUG.COLOR = 0.0
    for scale, shift in (((0.5, 1.5), 0.0), ((1.0, 1.0), 0.2)):
        cfg.SSOD.AUG.SCALE, cfg.SSOD.AUG.SHIFT = scale, shift
        (found,) = build_augmentations(cfg)
        assert isinstance(found, RandomExtent)
        assert (found.scale_range, found.shift_range) == (scale, (2 * shift, 2 * shift))


def test_pictures_are_shifted_by_up_to_the_part_of_them_that_is_asked_for():
    cfg = bare_config("output")
    cfg.SSOD.AUG.SHIFT, cfg.INPUT.MIN_SIZE_TRAIN = 0.2, (0,)
    (shift,) = build_augmentations(cfg)
    moved = []
    for _ in range(200):
        given = T.AugInput(picture(100, 100), boxes=np.array([[40.0, 40, 60, 60]]))
        shift(given)
        moved.append(given.boxes[0, :2] - 40)
    assert 18 < np.abs(moved).max() <= 20


def strong(image_format, seed):
    """Pixels, Tensor[3, H, W], after the strong augmentation."""
    torch.manual_seed(seed)
    return StrongAugmentation(image_format)(torch.from_numpy(picture().transpose(2, 0, 1).copy()))


def test_strong_changes_make_a_fifth_of_the_pictures_grey():
    found = [strong("RGB", seed) for seed in range(300)]
    assert 0.12 < np.mean([bool((each == each[:1]).all()) for each in found]) < 0.28
