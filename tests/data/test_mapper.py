import copy
import warnings

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.structures import BoxMode
from detectron2.utils.env import seed_all_rng
from pictures import save_picture

from d2_ssod.config import add_ssod_config
from d2_ssod.data.augmentation import RandomPhotometric, StrongAugmentation
from d2_ssod.data.mapper import PseudoLabelMapper, build_augmentations
from d2_ssod.errors import ConfigError

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


@pytest.fixture
def picture(tmp_path):
    return str(save_picture(tmp_path / "1.png", WIDTH, HEIGHT))


def annotation(box, category=0, **keys):
    return {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": category, **keys}


def pseudo(box, score, category=0, **keys):
    return annotation(box, category, score=score, pseudo=True, **keys)


def record(picture, annotations, **keys):
    return {
        "file_name": picture,
        "image_id": 1,
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": annotations,
        **keys,
    }


def mapper_with(cfg, *augmentations):
    mapper = PseudoLabelMapper(cfg, is_train=True)
    mapper.augmentations = T.AugmentationList(list(augmentations))
    return mapper


def test_labels_of_people_are_certain_and_not_pseudo(cfg, picture):
    mapped = PseudoLabelMapper(cfg)(record(picture, [annotation((1, 2, 20, 30), 3)]))
    instances = mapped["instances"]
    assert instances.gt_scores.tolist() == [1.0]
    assert instances.gt_is_pseudo.tolist() == [False]
    assert instances.gt_is_pseudo.dtype == torch.bool
    assert instances.gt_scores.dtype == torch.float32
    assert instances.gt_classes.tolist() == [3]
    assert instances.gt_boxes.tensor.tolist() == [[1, 2, 20, 30]]


def test_pseudo_labels_carry_score_and_mark(cfg, picture):
    boxes = [pseudo((1, 2, 20, 30), 0.25), pseudo((5, 5, 9, 9), 0.75)]
    instances = PseudoLabelMapper(cfg)(record(picture, boxes, is_pseudo=True))["instances"]
    assert instances.gt_scores.tolist() == [0.25, 0.75]
    assert instances.gt_is_pseudo.tolist() == [True, True]


def test_labels_of_people_on_unlabeled_images_are_not_pseudo(cfg, picture):
    of_person = record(picture, [annotation((1, 2, 20, 30))], is_pseudo=True, is_corrected=True)
    assert PseudoLabelMapper(cfg)(of_person)["instances"].gt_is_pseudo.tolist() == [False]


@pytest.mark.parametrize(
    ("argument", "kind"), [("use_instance_mask", "segmentation"), ("use_keypoint", "keypoints")]
)
def test_boxes_alone_are_refused_where_more_is_learned(cfg, picture, argument, kind):
    arguments = PseudoLabelMapper.from_config(cfg, True) | {argument: True}
    mapper = PseudoLabelMapper(**arguments)
    with pytest.raises(ConfigError, match=rf"1\.png: its pseudo-labels are boxes without {kind}"):
        mapper(record(picture, [pseudo((1, 2, 20, 30), 0.25)], is_pseudo=True))


@pytest.mark.parametrize("key", ["STRONG", "PHOTOMETRIC"])
def test_colors_of_floats_are_not_changed(cfg, picture, key):
    """They would be taken for 0..1."""

    class Noise(T.Augmentation):
        def get_transform(self, image):
            return T.ColorTransform(lambda x: x.astype("float32"))

    arguments = PseudoLabelMapper.from_config(cfg, True)
    if key == "STRONG":
        arguments |= {"strong": StrongAugmentation("BGR"), "strong_for_all": True}
    arguments["augmentations"] = [Noise(), *([RandomPhotometric("BGR")] * (key == "PHOTOMETRIC"))]
    with pytest.raises(TypeError, match=r"images of torch\.uint8, got torch\.float32: have"):
        PseudoLabelMapper(**arguments)(record(picture, [annotation((1, 2, 20, 30))]))


@pytest.mark.parametrize("augmentation", [StrongAugmentation, RandomPhotometric])
def test_colors_of_other_formats_are_not_changed(augmentation):
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT is 'YUV-BT\.601'"):
        augmentation("YUV-BT.601")


def test_scores_follow_their_boxes_through_the_filter(cfg, picture):
    """The crop cuts the middle box away, and others' scores stay with their classes."""
    boxes = [
        pseudo((2, 2, 18, 18), 0.9, 0),
        pseudo((40, 20, 58, 38), 0.8, 1),
        pseudo((10, 10, 30, 18), 0.7, 2),
    ]

    class CropTopLeft(T.Augmentation):
        def get_transform(self, image):
            return T.CropTransform(0, 0, 20, 20)

    mapped = mapper_with(cfg, CropTopLeft())(record(picture, boxes, is_pseudo=True))
    instances = mapped["instances"]
    assert instances.gt_classes.tolist() == [0, 2]
    assert instances.gt_scores.tolist() == pytest.approx([0.9, 0.7])
    assert instances.gt_is_pseudo.tolist() == [True, True]
    assert instances.gt_boxes.tensor.tolist() == [[2, 2, 18, 18], [10, 10, 20, 18]]


def test_scores_follow_their_boxes_through_a_flip(cfg, picture):
    boxes = [pseudo((2, 2, 18, 18), 0.9, 0), pseudo((40, 20, 58, 38), 0.8, 1)]
    flip = T.RandomFlip(prob=1.0)
    instances = mapper_with(cfg, flip)(record(picture, boxes, is_pseudo=True))["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[42, 2, 58, 18], [2, 20, 20, 38]]
    assert instances.gt_scores.tolist() == pytest.approx([0.9, 0.8])


def test_scores_follow_their_boxes_through_random_augmentations(cfg, picture):
    """Class, score and position tell the same box, whatever the augmentation did."""
    cfg.SSOD.AUG.SCALE = (0.4, 1.3)
    cfg.SSOD.AUG.SHIFT = 0.3
    cfg.SSOD.AUG.COLOR = 0.2
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    mapper = PseudoLabelMapper(cfg)
    boxes = [(3 + 14 * i, 5, 13 + 14 * i, 35) for i in range(4)]
    image = record(picture, [pseudo(b, 0.1 + 0.2 * i, i) for i, b in enumerate(boxes)])
    seed_all_rng(0)
    lost = 0
    for _ in range(60):
        instances = mapper(image)["instances"]
        expected = [0.1 + 0.2 * number for number in instances.gt_classes.tolist()]
        assert instances.gt_scores.tolist() == pytest.approx(expected)
        centers = instances.gt_boxes.get_centers()[:, 0].tolist()
        assert centers in (sorted(centers), sorted(centers, reverse=True))
        lost += len(boxes) - len(instances)
    assert lost > 0


class CropEmptyCorner(T.Augmentation):
    def get_transform(self, image):
        return T.CropTransform(50, 30, 10, 10)


def test_pseudo_labeled_image_without_boxes_left_is_drawn_again(cfg, picture):
    image = record(picture, [pseudo((2, 2, 18, 18), 0.9)], is_pseudo=True)
    assert mapper_with(cfg, CropEmptyCorner())(image) is None


def test_image_that_a_person_has_labeled_is_kept_without_boxes(cfg, picture):
    of_person = {"is_pseudo": True, "is_corrected": True}
    for boxes in ([annotation((2, 2, 18, 18))], []):
        mapped = mapper_with(cfg, CropEmptyCorner())(record(picture, boxes, **of_person))
        assert len(mapped["instances"]) == 0


def test_labeled_image_without_boxes_left_is_kept(cfg, picture):
    mapped = mapper_with(cfg, CropEmptyCorner())(record(picture, [annotation((2, 2, 18, 18))]))
    assert len(mapped["instances"]) == 0
    assert set(mapped["instances"].get_fields()) >= {"gt_scores", "gt_is_pseudo", "gt_boxes"}


def test_labeled_image_without_annotations_is_kept(cfg, picture):
    mapped = PseudoLabelMapper(cfg)(record(picture, []))
    instances = mapped["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_scores.shape == instances.gt_is_pseudo.shape == (0,)


def test_crowds_are_skipped_with_their_scores(cfg, picture):
    boxes = [
        pseudo((1, 1, 9, 9), 0.3, 0, iscrowd=1),
        pseudo((2, 2, 18, 18), 0.9, 1, iscrowd=0),
        pseudo((3, 3, 30, 30), 0.5, 2),
    ]
    instances = PseudoLabelMapper(cfg)(record(picture, boxes, is_pseudo=True))["instances"]
    assert instances.gt_classes.tolist() == [1, 2]
    assert instances.gt_scores.tolist() == pytest.approx([0.9, 0.5])


def test_pseudo_labeled_image_of_crowds_alone_is_drawn_again(cfg, picture):
    boxes = [pseudo((1, 1, 9, 9), 0.3, iscrowd=1)]
    assert PseudoLabelMapper(cfg)(record(picture, boxes, is_pseudo=True)) is None


def test_mapper_leaves_the_data_set_as_it_is(cfg, picture):
    boxes = [pseudo((2, 2, 18, 18), 0.9, segmentation=[[2, 2, 18, 2, 18, 18]])]
    image = record(picture, boxes, is_pseudo=True)
    before = copy.deepcopy(image)
    PseudoLabelMapper(cfg)(image)
    assert image == before


def test_labeled_images_are_mapped_as_by_detectron2(cfg, picture):
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.MIN_SIZE_TRAIN = (30, 50, 70)
    image = record(
        picture,
        [
            annotation((2, 2, 18, 18), 1, segmentation=[[2, 2, 18, 2, 18, 18]]),
            annotation((5, 5, 50, 30), 2, iscrowd=1),
            annotation((7, 3, 50, 30), 0),
        ],
    )
    for seed in range(5):
        results = []
        for mapper in (PseudoLabelMapper(cfg), DatasetMapper(cfg)):
            seed_all_rng(seed)
            results.append(mapper(copy.deepcopy(image)))
        ours, theirs = results
        assert torch.equal(ours["image"], theirs["image"])
        assert ours.keys() == theirs.keys()
        for name, value in theirs["instances"].get_fields().items():
            found = ours["instances"].get(name)
            if name == "gt_boxes":
                value, found = value.tensor, found.tensor
            assert torch.equal(found, value), name


def test_masks_are_kept_where_the_model_trains_on_them(cfg, picture):
    cfg.MODEL.MASK_ON = True
    polygon = [[2.0, 2.0, 18.0, 2.0, 18.0, 18.0]]
    image = record(picture, [annotation((2, 2, 18, 18), segmentation=polygon)])
    instances = PseudoLabelMapper(cfg)(image)["instances"]
    assert len(instances.gt_masks) == 1
    assert len(instances.gt_scores) == 1


def test_mapper_for_inference_has_no_augmentation_and_no_targets(cfg, picture):
    cfg.SSOD.AUG.COLOR = 0.5
    cfg.SSOD.AUG.SCALE = (0.5, 1.5)
    cfg.INPUT.MIN_SIZE_TEST = HEIGHT
    mapper = PseudoLabelMapper(cfg, is_train=False)
    image = record(picture, [pseudo((2, 2, 18, 18), 0.9)], is_pseudo=True)
    first, second = mapper(image), mapper(image)
    assert "instances" not in first
    assert torch.equal(first["image"], second["image"])
    assert tuple(first["image"].shape) == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("is_photometric", [False, True])
def test_grey_pictures_are_mapped_without_a_warning(cfg, picture, is_photometric):
    """Their channel needs no new order, so that the decoded pixels could be taken as they are."""
    cfg.INPUT.FORMAT = "L"
    mapper = PseudoLabelMapper(cfg, is_train=False)
    mapper.augmentations = T.AugmentationList([RandomPhotometric("L")] if is_photometric else [])
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(mapper(record(picture, []))["image"]) == 1
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("LOAD_PROPOSALS", True, "proposals"),
        ("PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "proposals.* set it to 'RPN'"),
        ("META_ARCHITECTURE", "PanopticFPN", "sem_seg_file_name"),
        ("META_ARCHITECTURE", "SemanticSegmentor", "sem_seg_file_name"),
    ],
)
def test_models_that_need_what_is_not_loaded_are_refused(cfg, key, value, what, is_train):
    cfg.merge_from_list([f"MODEL.{key}", value])
    with pytest.raises(ConfigError, match=f"MODEL.{key} is .*{what}.* Detectron2's DatasetMapper"):
        PseudoLabelMapper(cfg, is_train)


def test_segmentations_are_left_alone_where_the_model_is_a_detector(cfg, picture):
    mapped = PseudoLabelMapper(cfg)(record(picture, [], sem_seg_file_name="not there.png"))
    assert "sem_seg" not in mapped


def test_no_augmentation_by_default(cfg):
    assert build_augmentations(cfg) == []


def test_color_changes_pixels_within_its_limits(cfg, picture):
    cfg.SSOD.AUG.COLOR = 0.2
    plain = PseudoLabelMapper(cfg, is_train=False)
    image = record(picture, [annotation((2, 2, 18, 18))])
    cfg.INPUT.MIN_SIZE_TEST = HEIGHT
    original = plain(image)["image"].float()
    seed_all_rng(0)
    means = [PseudoLabelMapper(cfg)(image)["image"].float().mean().item() for _ in range(20)]
    assert len(set(means)) > 10
    # Three factors, of which the contrast's and the saturation's keep the mean about the same.
    assert all(0.75 < mean / original.mean().item() < 1.25 for mean in means)


def test_shift_moves_the_window_by_up_to_its_share(cfg, picture):
    """A small box in the middle moves by at most SHIFT times the image's size, either way."""
    cfg.SSOD.AUG.SHIFT = 0.25
    mapper = PseudoLabelMapper(cfg)
    image = record(picture, [annotation((29, 19, 31, 21))])
    seed_all_rng(0)
    centers = torch.cat([mapper(image)["instances"].gt_boxes.get_centers() for _ in range(100)])
    moved = (centers - torch.tensor([30.0, 20.0])) / torch.tensor([WIDTH, HEIGHT])
    assert moved.abs().max() <= 0.25 + 0.02
    assert moved.max() > 0.2
    assert moved.min() < -0.2


def test_scale_zooms_within_its_limits(cfg, picture):
    cfg.SSOD.AUG.SCALE = (0.5, 2.0)
    mapper = PseudoLabelMapper(cfg)
    image = record(picture, [annotation((28, 18, 32, 22))])
    seed_all_rng(0)
    widths = []
    for _ in range(100):
        mapped = mapper(image)
        box = mapped["instances"].gt_boxes.tensor[0]
        # The window is resized to the shorter side of the config, so compare shares.
        widths.append(((box[2] - box[0]) / mapped["image"].shape[2]).item() / (4 / WIDTH))
    # A window of half the size shows a box twice as large.
    assert 0.45 < min(widths) < 0.6
    assert 1.6 < max(widths) < 2.1


# Labels of two tiers


def tiered(box, tier, score=0.4, spread=None):
    return pseudo(box, score, tier=tier, spread=spread)


def fields_of(cfg, picture, annotations):
    mapped = PseudoLabelMapper(cfg)(record(picture, annotations, is_pseudo=True))
    return mapped["instances"]


def test_uncertain_labels_have_their_score_as_certainty_and_no_box(cfg, picture):
    boxes = [
        tiered((1, 2, 20, 30), "certain", 0.9, [0.04, 0.06]),
        tiered((25, 2, 40, 30), "uncertain", 0.25, [0.01, 0.01]),
        pseudo((42, 2, 58, 30), 0.5),  # a person's: neither tier nor spread
    ]
    found = fields_of(cfg, picture, boxes)
    assert found.gt_certainty.tolist() == [1.0, 0.25, 1.0]
    assert found.gt_box_gate.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_a_certain_label_that_one_box_alone_says_has_no_box(cfg, picture):
    assert fields_of(cfg, picture, [tiered((1, 2, 20, 30), "certain")]).gt_box_gate.tolist() == [
        [0, 0]
    ]


def test_labels_without_a_score_have_1(cfg, picture):
    """As labeling tools leave them out, or write null."""
    boxes = [pseudo((1, 2, 20, 30), None), tiered((25, 2, 40, 30), "uncertain", None)]
    del boxes[0]["score"]
    found = fields_of(cfg, picture, boxes)
    assert found.gt_scores.tolist() == [1.0, 1.0]
    assert found.gt_certainty.tolist() == [1.0, 1.0]


def test_a_config_of_detectron2_alone_is_refused():
    with pytest.raises(ConfigError, match=r"call d2_ssod\.config\.add_ssod_config"):
        PseudoLabelMapper(get_cfg())


def test_uncertain_labels_may_be_learned_as_certain_ones(cfg, picture):
    cfg.SSOD.TIERS.UNCERTAIN = "hard"
    found = fields_of(cfg, picture, [tiered((1, 2, 20, 30), "uncertain", 0.25)])
    assert found.gt_certainty.tolist() == [1.0]


def test_all_edges_of_certain_labels_can_be_learned(cfg, picture):
    cfg.SSOD.TIERS.MAX_SPREAD = 1.0
    labels = [
        tiered((1, 2, 20, 30), "certain"),  # one model alone sees it
        tiered((21, 2, 24, 30), "certain", 0.9, [0.3, 1.25]),
        tiered((25, 2, 40, 30), "uncertain", 0.25, [0.01, 0.01]),
    ]
    assert fields_of(cfg, picture, labels).gt_box_gate.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_labels_without_tiers_have_no_such_fields(cfg, picture):
    found = fields_of(cfg, picture, [pseudo((1, 2, 20, 30), 0.25)])
    assert not found.has("gt_certainty")


# Strong augmentation


@pytest.mark.parametrize(
    ("strong", "is_pseudo", "changed"),
    [("none", True, False), ("pseudo", False, False), ("pseudo", True, True), ("all", False, True)],
)
def test_strong_augmentation_is_of_the_chosen_images(cfg, picture, strong, is_pseudo, changed):
    cfg.SSOD.AUG.STRONG, cfg.SSOD.TEACHER.ENABLED = strong, True
    image = record(picture, [pseudo((1, 2, 20, 30), 0.5)], is_pseudo=is_pseudo)
    seed_all_rng(1)
    mapped = PseudoLabelMapper(cfg)(image)
    assert ("weak_image" in mapped) == changed
    cfg.SSOD.TEACHER.ENABLED = False
    assert "weak_image" not in PseudoLabelMapper(cfg)(image)  # which nobody would look at
    if changed:
        plain = torch.from_numpy(utils.read_image(picture, cfg.INPUT.FORMAT).copy())
        assert torch.equal(mapped["weak_image"], plain.permute(2, 0, 1))
        assert not torch.equal(mapped["weak_image"], mapped["image"])
        assert mapped["image"].shape == mapped["weak_image"].shape
    assert mapped["image"].dtype == torch.uint8
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[1, 2, 20, 30]]


def test_a_mapper_of_given_parts_keeps_what_a_teacher_looks_at(picture):
    strong = StrongAugmentation("BGR")
    mapper = PseudoLabelMapper(True, augmentations=[], image_format="BGR", strong=strong)
    assert "weak_image" in mapper(record(picture, [pseudo((1, 2, 20, 30), 0.5)], is_pseudo=True))


def test_strong_augmentation_is_that_of_the_seed():
    strong, image = StrongAugmentation("BGR"), torch.arange(3 * 32 * 32).view(3, 32, 32).byte()
    results = []
    for seed in (1, 1, 2):
        seed_all_rng(seed)
        results.append(strong(image))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("size", [(1, 1), (4, 200), (200, 3), (5, 5)])
def test_small_pictures_are_augmented_strongly(size):
    strong, image = StrongAugmentation("BGR"), torch.zeros(3, *size, dtype=torch.uint8)
    seed_all_rng(0)
    assert all(strong(image).shape == image.shape for _ in range(20))


def test_strong_augmentation_of_bgr_is_that_of_rgb():
    image = (torch.rand(3, 32, 32) * 255).byte()
    seed_all_rng(3)
    of_rgb = StrongAugmentation("RGB")(image)
    seed_all_rng(3)
    assert torch.equal(StrongAugmentation("BGR")(image.flip(0)).flip(0), of_rgb)


def test_grey_pictures_are_augmented_strongly():
    seed_all_rng(0)
    assert StrongAugmentation("L")(torch.zeros(1, 16, 16, dtype=torch.uint8)).shape == (1, 16, 16)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_augmentations_are_told_the_order_of_channels(cfg, image_format):
    cfg.INPUT.FORMAT, cfg.SSOD.AUG.STRONG, cfg.SSOD.AUG.PHOTOMETRIC = image_format, "all", True
    mapper = PseudoLabelMapper(cfg)
    photometric = mapper.augmentations.augs[1]  # after ShrinkLarge
    assert isinstance(photometric, RandomPhotometric)  # before Detectron2's own
    assert photometric._is_bgr == mapper.strong._is_bgr == (image_format == "BGR")


def test_augmentations_see_the_boxes_of_objects(cfg, picture):
    seen = []

    class Look(T.Augmentation):
        def get_transform(self, image, boxes):
            seen.append(boxes.tolist())
            return T.NoOpTransform()

    boxes = [annotation((2, 2, 18, 18)), annotation((5, 5, 50, 30), iscrowd=1)]
    mapper_with(cfg, Look())(record(picture, boxes))
    assert seen == [[[2, 2, 18, 18]]]


def test_color_makes_pictures_darker_and_brighter(cfg, picture):
    cfg.SSOD.AUG.COLOR = 0.2
    names = [type(a).__name__ for a in build_augmentations(cfg)]
    assert names == ["ShrinkLarge", "RandomBrightness", "RandomContrast", "RandomSaturation"]
    for augmentation in build_augmentations(cfg)[1:]:
        assert (augmentation.intensity_min, augmentation.intensity_max) == (0.8, 1.2)


def test_each_part_of_the_strong_augmentation_has_its_probability():
    kinds = StrongAugmentation("RGB")._transform.transforms
    assert [getattr(kind, "p", None) for kind in kinds] == [0.8, 0.2, 0.5, 0.7, 0.5, 0.3]
    assert [kind.value for kind in kinds[3:]] == [[127.0]] * 3


def test_keypoints_change_sides_with_a_flip(cfg, picture):
    cfg.MODEL.KEYPOINT_ON, cfg.DATASETS.TRAIN = True, ("keypoints_of_two_eyes",)
    MetadataCatalog.get("keypoints_of_two_eyes").set(
        keypoint_names=["nose", "left_eye", "right_eye"],
        keypoint_flip_map=[("left_eye", "right_eye")],
    )
    keypoints = [10, 5, 2, 6, 4, 2, 14, 4, 1]
    image = record(picture, [annotation((2, 2, 18, 18), keypoints=keypoints)])
    flipped = mapper_with(cfg, T.RandomFlip(prob=1.0))(image)["instances"]
    expected = [[WIDTH - 10, 5, 2], [WIDTH - 14, 4, 1], [WIDTH - 6, 4, 2]]
    assert flipped.gt_keypoints.tensor.tolist() == [expected]


@pytest.mark.parametrize("crops", [False, True])
def test_boxes_are_those_of_the_masks_where_pictures_are_cropped(cfg, picture, crops):
    cfg.MODEL.MASK_ON, cfg.INPUT.CROP.ENABLED = True, crops
    triangle = [[5.0, 6.0, 30.0, 6.0, 30.0, 25.0]]
    image = record(picture, [annotation((0, 0, 40, 40), segmentation=triangle)])
    found = mapper_with(cfg)(image)["instances"].gt_boxes.tensor.tolist()
    assert found == [[5, 6, 30, 25] if crops else [0, 0, 40, 40]]


def test_color_of_grey_pictures_changes_without_their_saturation(cfg, picture):
    cfg.INPUT.FORMAT, cfg.SSOD.AUG.COLOR = "L", 0.2
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0], [1.0]
    seed_all_rng(0)
    means = [PseudoLabelMapper(cfg)(record(picture, []))["image"].float().mean() for _ in range(5)]
    assert len({mean.item() for mean in means}) == 5


def test_each_part_of_the_strong_augmentation_has_its_strength():
    apply_jitter, _, apply_blur, *erasings = StrongAugmentation("RGB")._transform.transforms
    (jitter,), (blur,) = apply_jitter.transforms, apply_blur.transforms
    assert [jitter.brightness, jitter.contrast, jitter.saturation] == [(0.6, 1.4)] * 3
    assert jitter.hue == (-0.1, 0.1)
    assert tuple(blur.sigma) == (0.1, 2.0)
    assert [tuple(erasing.scale) for erasing in erasings] == [(0.02, 0.2)] * 3


def test_models_that_differ_by_the_limit_do_not_teach_the_edges(cfg, picture):
    cfg.SSOD.TIERS.MAX_SPREAD = 0.25
    box = pseudo((1, 2, 20, 30), 0.9, tier="certain", spread=[0.25, 0.125])
    instances = PseudoLabelMapper(cfg)(record(picture, [box], is_pseudo=True))["instances"]
    assert instances.gt_box_gate.tolist() == [[0.0, 1.0]]


def test_what_a_person_has_labeled_is_augmented_strongly_too(cfg, picture):
    cfg.SSOD.AUG.STRONG, cfg.SSOD.TEACHER.ENABLED = "pseudo", True
    own = record(picture, [annotation((2, 2, 38, 38))], is_pseudo=True, is_corrected=True)
    assert "weak_image" in PseudoLabelMapper(cfg)(own)
