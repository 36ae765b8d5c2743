import argparse
import json
import re
import shlex

import catalogs
import pytest
import runs
import yaml
from detectron2.config import CfgNode
from pictures import coco_contents, save_picture, write_coco, write_voc_image

from d2_ssod.commands import init as init_command
from d2_ssod.commands import main
from d2_ssod.commands.init import data_sets, lines
from d2_ssod.commands.init.choices import METHODS
from d2_ssod.commands.init.schedule import EpochSchedule
from d2_ssod.engine import default_argument_parser
from d2_ssod.engine.configs.checks import check_config
from d2_ssod.engine.configs.files import read_config
from d2_ssod.engine.configs.schedule import phase_config


@pytest.fixture(autouse=True)
def restored_catalogs():
    """Forget the data sets that a test registers."""
    with catalogs.restored_catalogs():
        yield


@pytest.fixture
def folder(tmp_path):
    boxes = [(1, 2, 10, 8), (2, 1, 8, 12), (3, 3, 12, 12)]
    write_coco(tmp_path / "labeled", coco_contents(12, boxes=boxes))
    write_coco(tmp_path / "val", coco_contents(3, boxes=boxes))
    for name in "abc":
        save_picture(tmp_path / "unlabeled" / f"unlabeled_{name}.png")
    return tmp_path


def ran(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    return caught.value.code


def init(folder, *more, labeled=("--labeled", "labeled/instances.json"), name="mine.yaml"):
    given = [str(folder / a) if not a.startswith("-") else a for a in labeled]
    path = folder / name
    arguments = [*given, "--unlabeled", folder / "unlabeled", "-o", path, "--name", folder.name]
    assert ran("init", *arguments, *more) == 0
    return path


def test_names_of_data_sets_may_have_any_letters(folder):
    path = init(folder, "--name", "a, b]")
    names = yaml.safe_load(path.read_text())["DATASETS"]
    assert (names["TRAIN"], names["UNLABELED"]) == (["a, b]_labeled"], ["a, b]_unlabeled"])


def test_nothing_is_left_of_what_fails(folder, monkeypatch):
    copy = folder / "unlabeled" / "copy.png"
    copy.write_bytes(next((folder / "labeled").glob("*.png")).read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(init_command, "lines_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            init(folder)
    assert not (folder / "mine_unlabeled.txt").exists()
    assert "copy.png" not in init(folder).with_name("mine_unlabeled.txt").read_text()


@pytest.mark.parametrize("model", ["r50", "small"])
def test_the_config_is_one_that_works(folder, model, capsys):
    path = init(folder, "--test", folder / "val" / "instances.json", "--model", model)
    written = yaml.safe_load(path.read_text())
    assert written["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 2
    assert written["DATASETS"]["TEST"] == [f"{folder.name}_test"]
    assert "IMAGES" in written["SSOD"]["REGISTER"][0]
    assert written["MODEL"]["ANCHOR_GENERATOR"]["SIZES"] == sorted(
        written["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]
    )
    capsys.readouterr()
    assert ran("check", "--config-file", path) == 0
    text = capsys.readouterr().out
    assert "no object is a 'dog'" in text
    assert "test images are labeled images too" in text  # the pictures are made alike
    assert "0 errors, 4 warnings" in text


@pytest.mark.parametrize("model", ["r50", "small"])
def test_the_method_is_self_training_a_mean_teacher_or_the_papers(folder, model, capsys):
    for name, phases in (("self-training", 1), ("teacher", 1), ("paper", 2)):
        given = ["--val", folder / "val" / "instances.json", "--model", model, "--method", name]
        path = init(folder, *given, name=f"{name}.yaml")
        written = yaml.safe_load(path.read_text())
        assert written["DATASETS"]["VAL"] == [f"{folder.name}_val"]
        assert written["SSOD"]["NUM_PHASES"] == phases
        assert ("TEACHER" in written["SSOD"]) == (name == "teacher")
        (lengths,) = (
            written["SSOD"]["SCHEDULE"][key]
            for key in ("EPOCHS", "MAX_ITER")
            if key in written["SSOD"]["SCHEDULE"]
        )
        assert len(lengths) == phases + 1
        assert ran("check", "--config-file", path) == 0


@pytest.mark.parametrize(
    ("method", "config"),
    [("self-training", "Base-Self-Training.yaml"), ("teacher", "Base-Mean-Teacher.yaml")],
)
def test_the_method_is_that_of_the_shipped_configs(method, config):
    shipped = CfgNode.load_yaml_with_base(str(runs.ROOT / "configs" / config))["SSOD"]
    assert yaml.safe_load("\n".join(["SSOD:", *METHODS[method]]))["SSOD"] == shipped


def test_self_training_takes_as_many_image_passes_as_two_phases():
    """2000 labeled pictures, 50 000 unlabeled ones, eight GPUs."""
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    epochs = {}
    for method in ("paper", "self-training", "teacher"):
        command = ["--labeled", "a", "--unlabeled", "b", "--method", method]
        schedule = EpochSchedule.of(parser.parse_args(command), 2000, 50_000)
        epochs[method] = schedule.epochs
    assert epochs["paper"] == [16, 12, 12]
    assert epochs["self-training"] == [48, pytest.approx(17.0, abs=0.1)]
    assert epochs["teacher"] == epochs["self-training"]


def test_a_ready_config_is_as_long_as_one_that_is_made():
    """Of VOC07 and VOC12 trainval, with four GPUs."""
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    arguments = ["--labeled", "a.json", "--unlabeled", "u", "-o", "o.yaml", "--num-gpus", "4"]
    schedule = EpochSchedule.of(parser.parse_args(arguments), 5011, 11540)
    cfg = read_config(str(runs.ROOT / "configs" / "voc_best.yaml"))
    assert cfg.SOLVER.IMS_PER_BATCH == 8
    assert list(cfg.SSOD.SCHEDULE.EPOCHS) == schedule.epochs
    assert list(cfg.SSOD.SCHEDULE.STEP_EPOCHS) == [round(0.75 * e, 1) for e in schedule.epochs]


@pytest.mark.parametrize("method", ["self-training", "teacher", "paper"])
def test_half_of_each_batch_is_labeled(folder, method):
    made = yaml.safe_load(init(folder, "--method", method).read_text())
    loading = made.get("DATALOADER", {"ASPECT_RATIO_GROUPING": True})
    assert loading == {"ASPECT_RATIO_GROUPING": method == "paper"}


@pytest.mark.parametrize(
    ("unlabeled", "lengths", "part"), [(3, [6000, 2000], 0.75), (60, [3000, 5000], 0.375)]
)
def test_phase_0_takes_most_of_the_time_where_many_pictures_are_labeled(
    folder, unlabeled, lengths, part
):
    for number in range(unlabeled):  # beside 12 labeled ones
        save_picture(folder / "unlabeled" / f"unlabeled_more_{number}.png")
    path = init(folder, "--model", "small")
    assert yaml.safe_load(path.read_text())["SSOD"]["SCHEDULE"]["MAX_ITER"] == lengths
    path = init(folder, "--model", "small", "--method", "paper", name="paper.yaml")
    assert yaml.safe_load(path.read_text())["SSOD"]["SCHEDULE"]["MAX_ITER"] == [1500, 1200, 1200]
    text = " ".join(init(folder, name="r50.yaml").read_text().replace("#", " ").split())
    assert f"at most about {part:g} of them in phase 0" in text


@pytest.mark.parametrize("method", ["self-training", "teacher", "paper"])
@pytest.mark.parametrize(("num_labeled", "num_unlabeled"), [(30, 174), (2000, 50_000)])
def test_no_phase_is_all_warm_up(method, num_labeled, num_unlabeled):
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    arguments = parser.parse_args(["--labeled", "a", "--unlabeled", "b", "--method", method])
    schedule = EpochSchedule.of(arguments, num_labeled, num_unlabeled)
    text = "\n".join(lines._solver_lines(arguments, schedule))
    warm_up = yaml.safe_load(text)["SOLVER"].get("WARMUP_ITERS", 1000)
    assert warm_up <= min(schedule.iterations) / 10


def test_the_runs_folder_is_named_after_the_file(folder):
    for name in ("r50.yaml", "lr 0.02.yaml"):
        written = yaml.safe_load(init(folder, name=name).read_text())
        assert written["OUTPUT_DIR"] == f"output/{name.removesuffix('.yaml')}"


def test_the_next_command_can_be_pasted(folder, capsys):
    path = init(folder, name="my config.yaml")
    *_, line = capsys.readouterr().out.splitlines()
    command = shlex.split(line.split("Next: ")[1])
    assert command == ["python", "-m", "d2_ssod", "check", "--config-file", str(path)]


@pytest.mark.parametrize(("model", "key"), [("small", "MAX_ITER"), ("r50", "EPOCHS")])
def test_the_documented_trial_is_one_of_the_written_config(folder, model, key):
    text = (runs.ROOT / "docs" / "own_data.md").read_text().replace("\\\n", " ")
    trial = rf"^python -m d2_ssod (train .*output/trial.*{key}.*)$"
    (line,) = re.findall(trial, text, re.MULTILINE)
    path = init(folder, "--model", model)
    line = line.replace("mine.yaml", str(path))
    arguments = default_argument_parser().parse_args(shlex.split(line, comments=True)[1:])
    cfg = read_config(arguments.config_file, arguments.opts, on_cpu=True)
    check_config(cfg, max(arguments.num_gpus, 1))
    assert cfg.OUTPUT_DIR == "output/trial"
    for phase, images in enumerate([1200, 2400]):
        own = phase_config(cfg, phase, 1200, images - 1200)
        assert own.SOLVER.MAX_ITER <= 20
        assert own.SOLVER.STEPS == ()


def test_pictures_to_judge_by_that_are_all_trained_on_are_refused(folder, capsys):
    """Names of validation images that the folder of labeled ones has, too; or links to these."""
    val = folder / "val" / "instances.json"
    content = json.loads(val.read_text())
    for number, image in enumerate(content["images"]):
        link = folder / "linked" / f"{number}.png"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(next((folder / "labeled").rglob("*.png")))
        image["file_name"] = link.name
    (folder / "linked" / "val.json").write_text(json.dumps(content))
    given = ["--labeled", folder / "labeled" / "instances.json", "--unlabeled"]
    given += [folder / "unlabeled", "-o", folder / "mine.yaml"]
    assert ran("init", *given, "--val", folder / "linked" / "val.json") == 2
    error = capsys.readouterr().err
    assert "--val " in error
    assert "pictures are among those of --labeled; name some that are kept out" in error
    assert not (folder / "mine.yaml").exists()


def test_trainval_of_a_voc_folder_is_what_is_trained_on(folder):
    place = folder / "voc"
    for name in ("a", "b"):
        save_picture(place / "JPEGImages" / f"{name}.png", 40, 20)
        (place / "Annotations").mkdir(exist_ok=True)
        (place / "Annotations" / f"{name}.xml").write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    lists = place / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, name in (("trainval", "a"), ("test", "b")):
        (lists / f"{split}.txt").write_text(f"{name}\n")
    path = init(folder, "--test", place, labeled=("--labeled", "voc"))
    entries = yaml.safe_load(path.read_text())["SSOD"]["REGISTER"]
    assert [entry.get("SPLIT") for entry in entries] == ["trainval", None, "test"]


def test_the_time_of_a_cpu_is_said(folder):
    text = " ".join(init(folder, "--model", "small").read_text().split())
    assert "takes 0.2 to 1 s on two cores" in text.replace("# ", "")
    assert "0.4 to 2.2 hours for all" in text.replace("# ", "")


def test_every_choice_is_explained(folder):
    path = init(folder, "--num-gpus", "2")
    text = path.read_text()
    assert "objects: cat 36, dog 0" in text
    assert "mean best IoU" in text
    assert "BASE_LR: 0.005" in text
    assert "TEST: []" in text
    assert all(len(line) <= 100 for line in text.splitlines() if line.strip().startswith("#"))


def test_yolo_and_voc_are_taken(folder):
    (folder / "data.yaml").write_text("train: pictures\nval: pictures\nnames: [cat, dog]\n")
    save_picture(folder / "pictures" / "a.png", 40, 20)
    (folder / "pictures" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    path = init(folder, labeled=("--labeled", "data.yaml"), name="yolo.yaml")
    assert yaml.safe_load(path.read_text())["SSOD"]["REGISTER"][0]["SPLIT"] == "train"
    (folder / "pictures" / "a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object></annotation>"
    )
    path = init(folder, "--name", "other", labeled=("--labeled", "pictures"), name="voc.yaml")
    assert yaml.safe_load(path.read_text())["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 1


def test_classes_of_voc_are_those_of_the_labeled_pictures(folder, capsys):
    for place, names in (("labeled_voc", ["cat", "dog"]), ("val_voc", ["cat"])):
        for number, name in enumerate(names):
            save_picture(folder / place / f"{place}_{number}.png", 40, 20)
            (folder / place / f"{place}_{number}.xml").write_text(
                f"<annotation><object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
            )
    with catalogs.restored_catalogs():  # of a process of its own
        path = init(folder, "--val", folder / "val_voc", labeled=("--labeled", "labeled_voc"))
    entries = yaml.safe_load(path.read_text())["SSOD"]["REGISTER"]
    assert [entry.get("CLASSES") for entry in entries] == [["cat", "dog"], None, ["cat", "dog"]]
    capsys.readouterr()
    assert ran("check", "--config-file", path) == 0


def test_the_parts_of_a_split_are_taken(folder):
    file = folder / "labeled" / "instances.json"
    assert ran("split", file, "--percent", 50) == 0
    parts = [file.with_name(f"instances_50_percent_{n}.json") for n in ("labeled", "unlabeled")]
    arguments = ["--labeled", parts[0], "--unlabeled", parts[1], "--name", folder.name]
    assert ran("init", *arguments, "--images", file.parent, "-o", folder / "split.yaml") == 0
    entries = yaml.safe_load((folder / "split.yaml").read_text())["SSOD"]["REGISTER"]
    assert entries[1] == {
        "NAME": f"{folder.name}_unlabeled",
        "JSON": str(parts[1]),
        "IMAGES": str(file.parent),
        "UNLABELED": True,
    }
    assert ran("check", "--config-file", folder / "split.yaml") == 0


def test_models_may_find_as_many_objects_as_there_are(folder):
    boxes = [(n % 15, n // 15, 8, 4) for n in range(170)]
    write_coco(folder / "labeled", coco_contents(2, boxes=boxes))
    written = yaml.safe_load(init(folder).read_text())
    assert written["TEST"]["DETECTIONS_PER_IMAGE"] == 300
    assert written["DATASETS"]["TEST"] == []


def test_an_existing_file_is_kept(folder, capsys):
    path = init(folder)
    before = path.read_text()
    again = ["--labeled", folder / "labeled" / "instances.json", "--unlabeled", folder, "-o", path]
    assert ran("init", *again) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == before


def test_data_that_cannot_be_used_are_one_line(folder, capsys):
    path = folder / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    del contents["annotations"]
    path.write_text(json.dumps(contents))
    arguments = ["--labeled", path, "--unlabeled", folder / "unlabeled", "-o", folder / "x.yaml"]
    assert ran("init", *arguments, "--name", "bare") == 2
    assert "has no annotations" in capsys.readouterr().err
    assert ran("init", "--labeled", folder / "no.json", *arguments[2:], "--name", "gone") == 2
    assert "no.json is not a file" in capsys.readouterr().err


def refusal(folder, labeled, capsys):
    unlabeled = ["--unlabeled", folder / "unlabeled", "-o", folder / "x.yaml"]
    assert ran("init", "--labeled", labeled, *unlabeled, "--name", folder.name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_crowds_alone_are_one_line(folder, capsys):
    path = folder / "labeled" / "instances.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    line = refusal(folder, path, capsys)
    assert line.startswith(f"error: {path}: has no object that can be learned")


def test_difficult_objects_alone_are_one_line(folder, capsys):
    save_picture(folder / "voc" / "a.png", 40, 20)
    (folder / "voc" / "a.xml").write_text(
        "<annotation><object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    line = refusal(folder, folder / "voc", capsys)
    assert line.startswith(f"error: {folder}/voc: has no object that can be learned")


def test_pictures_of_unknown_size_that_cannot_be_read_are_one_line(folder, capsys):
    path = folder / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    for image in contents["images"]:
        del image["width"], image["height"]
        (folder / "labeled" / image["file_name"]).write_text("no picture")
    path.write_text(json.dumps(contents))
    line = refusal(folder, path, capsys)
    assert line.startswith(f"error: {path}: no labeled picture can be read, such as ")
    assert "1.png, which is not a readable image; correct the files" in line


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--labeled", "labeled/instance.json", "is not a file"),
        ("--labeled", "gone/instances.json", "is not a file"),
        ("--labeled", "data.yaml", "is not a file"),
        ("--images", "gone", "is not a folder"),
        ("--unlabeled", "gone", "is not a folder, a picture or a text file"),
        ("--val", "val/instance.json", "is not a file"),
        ("--val-images", "gone", "is not a folder"),
        ("--test", "val/instance.json", "is not a file"),
        ("--test-images", "gone", "is not a folder"),
    ],
)
def test_the_option_with_a_wrong_path_is_named(folder, option, value, said, capsys):
    given = {
        "--labeled": "labeled/instances.json",
        "--unlabeled": "unlabeled",
        "--val": "val/instances.json",
        "--val-images": "val",
        "--test": "val/instances.json",
        "--test-images": "val",
    }
    given[option] = value
    paths = (word for o, place in given.items() for word in (o, folder / place))
    assert ran("init", *paths, "-o", folder / "x.yaml", "--name", folder.name) == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: {folder / value} {said}")


def test_the_option_behind_other_errors_is_named(folder, capsys):
    (folder / "list.txt").write_text("gone.png\nlost.png\n")
    (folder / "data.yaml").write_text("train: unlabeled\nnames: [cat]\n")
    labeled = ["init", "--labeled", folder / "data.yaml", "-o", folder / "x.yaml"]
    assert ran(*labeled, "--unlabeled", folder / "list.txt", "--name", folder.name) == 2
    assert capsys.readouterr().err.startswith("error: --unlabeled: none of 2 pictures is")
    val = ["--unlabeled", folder / "unlabeled", "--val", folder / "val" / "instances.json"]
    assert ran(*labeled, *val, "--images", folder / "none", "--name", f"{folder.name}_2") == 2
    assert capsys.readouterr().err.startswith(f"error: --images: {folder}/none is not a folder")


@pytest.mark.parametrize("option", ["--images", "--val-images", "--test-images"])
@pytest.mark.parametrize("has_sizes", [True, False])
def test_pictures_that_are_elsewhere_are_said(folder, option, has_sizes, capsys):
    for name in ("labeled", "val"):
        path = folder / name / "instances.json"
        contents = json.loads(path.read_text())
        for image in contents["images"]:
            image["file_name"] = f"{name}_{image['file_name']}"
            save_picture(folder / name / image["file_name"])
            if not has_sizes:
                del image["width"], image["height"]
        path.write_text(json.dumps(contents))
    given = {
        "--labeled": "labeled/instances.json",
        "--images": "labeled",
        "--unlabeled": "unlabeled",
        "--val": "val/instances.json",
        "--val-images": "val",
        "--test": "val/instances.json",
        "--test-images": "val",
    }
    given[option] = "unlabeled"
    paths = (word for o, place in given.items() for word in (o, folder / place))
    assert ran("init", *paths, "-o", folder / "x.yaml", "--name", folder.name) == 2
    count, name = (12, "labeled") if option == "--images" else (3, "val")
    assert capsys.readouterr().err == (
        f"error: {option}: none of {count} pictures is in {folder}/unlabeled, such as "
        f"{name}_1.png; name the folder that has them\n"
    )


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_each_set_is_the_split_of_its_name(folder, split, kind):
    place = folder / ("voc" if kind == "voc" else "data.yaml")
    if kind == "yolo":
        place.write_text("train: a\nval: b\ntest: c\nnames: [cat]\n")
    else:
        (place / "ImageSets" / "Main").mkdir(parents=True)
        for name in ("train", "val", "test"):
            (place / "ImageSets" / "Main" / f"{name}.txt").touch()
    parser = argparse.ArgumentParser()
    init_command.add_arguments(parser)
    given = ["--labeled", "x.json", "--unlabeled", "u", f"--{split}", str(place)]
    entries = data_sets.entries_of(parser.parse_args(given))
    assert entries[split.upper()]["SPLIT"] == split


def test_without_a_test_split_the_other_is_taken(folder):
    place = folder / "data.yaml"
    place.write_text("train: a\nval: b\ntest:\nnames: [cat]\n")
    assert data_sets._annotated("x", str(place), None, ["test", "val"])["SPLIT"] == "val"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--val-images", "v"], "--val-images v is given without --val; name both"),
        (["--test-images", "v"], "--test-images v is given without --test; name both"),
        (["--labeled", "data.yaml", "--images", "v"], "--images v is given, but data.yaml itself"),
        (["--labeled", "data.yaml", "--images", "u"], "--images u is given, but data.yaml itself"),
        (["--val", "data.yaml", "--val-images", "v"], "--val-images v is given, but data.yaml "),
        (["--test", "data.yaml", "--test-images", "v"], "--test-images v is given, but data.yaml "),
        (["--labeled", "voc", "--val", "voc"], "--val voc has the images that --labeled has"),
        (
            ["--labeled", "listed", "--val", "listed"],
            "listed: has lists of images (train), but no val.txt",
        ),
        (["--test", "x.json"], "--test x.json has the images that --labeled has"),
        (["--num-gpus", "-3"], "'-3' is not a whole number, 0 or more"),
        (["--num-gpus", "x"], "'x' is not a whole number, 0 or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(folder, given, said, capsys, monkeypatch):
    (folder / "data.yaml").write_text("train: a\nnames: [cat]\n")
    monkeypatch.chdir(folder)
    (folder / "voc").mkdir()
    (folder / "listed" / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "listed" / "ImageSets" / "Main" / "train.txt").touch()
    argv = ["init", "--labeled", "x.json", "--unlabeled", "u", "-o", folder / "x.yaml", *given]
    assert ran(*argv) == 2
    assert said in capsys.readouterr().err


def test_all_pictures_may_lie_in_one_folder(folder, capsys):
    together = folder / "all"
    together.mkdir()
    for place in ("labeled", "val", "unlabeled"):
        for picture in (folder / place).glob("*.png"):
            save_picture(together / f"{place}_{picture.name}")  # no copy of another
    for place in ("labeled", "val"):
        file = folder / place / "instances.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = f"{place}_{image['file_name']}"
        file.write_text(json.dumps(content))
    given = ["--labeled", folder / "labeled" / "instances.json", "--images", together]
    given += ["--test", folder / "val" / "instances.json", "-o", folder / "one.yaml"]
    with catalogs.restored_catalogs():  # of a process of its own
        assert ran("init", *given, "--unlabeled", together, "--name", folder.name) == 0
    assert "15 of 18 pictures of --unlabeled are labeled" in capsys.readouterr().out
    listed = (folder / "one_unlabeled.txt").read_text().splitlines()
    assert listed == [str(together / f"unlabeled_unlabeled_{name}.png") for name in "abc"]
    assert ran("check", "--config-file", folder / "one.yaml") == 0
    assert "unlabeled images are labeled" not in capsys.readouterr().out


def test_copies_of_labeled_pictures_are_not_unlabeled_ones(folder, capsys):
    """As a tool exports those of the pool, by other names."""
    labeled = next((folder / "labeled").rglob("*.png"))
    (folder / "unlabeled" / "90fbb0c7-copy.png").write_bytes(labeled.read_bytes())
    with catalogs.restored_catalogs():  # of a process of its own
        path = init(folder)
    assert "1 of 4 pictures of --unlabeled are labeled" in capsys.readouterr().out
    listed = (folder / "mine_unlabeled.txt").read_text().splitlines()
    assert listed == [str(folder / "unlabeled" / f"unlabeled_{name}.png") for name in "abc"]
    assert ran("check", "--config-file", path) == 0
    assert "unlabeled images are labeled" not in capsys.readouterr().out


def test_a_folder_of_labeled_pictures_alone_has_no_unlabeled_ones(folder, capsys):
    given = ["--labeled", folder / "labeled" / "instances.json", "-o", folder / "one.yaml"]
    assert ran("init", *given, "--unlabeled", folder / "labeled", "--name", folder.name) == 2
    assert "all 12 pictures are labeled, validation or test ones" in capsys.readouterr().err
    assert not (folder / "one.yaml").exists()


@pytest.mark.parametrize("name", ["red\n cell", "a\u2028b", "bell\x07", "tab\there"])
def test_a_class_may_have_any_name(folder, name):
    file = folder / "labeled" / "instances.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = name
    file.write_text(json.dumps(content))
    (folder / "val" / "instances.json").unlink()
    written = yaml.safe_load(init(folder).read_text())
    assert written["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == len(content["categories"])


@pytest.mark.parametrize("option", ["--val", "--test"])
def test_images_that_judge_have_objects(folder, option, capsys):
    path = write_coco(folder / "bare", coco_contents(3, boxes=[]))
    arguments = ["--labeled", folder / "labeled" / "instances.json", "--unlabeled"]
    arguments += [folder / "unlabeled", option, path, f"{option}-images", folder / "bare"]
    assert ran("init", *arguments, "-o", folder / "x.yaml", "--name", folder.name) == 2
    assert f"{option} {path}: no image there has an object; name" in capsys.readouterr().err


def test_a_control_is_trained_as_long(folder):
    path = folder / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    contents["annotations"] = [a for a in contents["annotations"] if a["image_id"] <= 6]
    path.write_text(json.dumps(contents))
    small = init(folder, "--model", "small").read_text().replace("\n  # ", " ")
    assert "SSOD.NUM_PHASES 0 SSOD.SCHEDULE.MAX_ITER '[8000]'" in small
    large = init(folder, "--name", f"{folder.name}_2", name="r50.yaml").read_text()
    words = " ".join(large.replace("#", " ").split())
    control = re.search(r"NUM_PHASES 0 SSOD\.SCHEDULE\.EPOCHS '\[(\d+)\]'", words)
    cfg = yaml.safe_load(large)
    of_phases = zip(cfg["SSOD"]["SCHEDULE"]["EPOCHS"], (6, 6 + 3), strict=True)
    passes = sum(epochs * pictures for epochs, pictures in of_phases)
    assert int(control[1]) * 6 == pytest.approx(passes, rel=0.01)


def test_unlabeled_pictures_that_cannot_be_read_are_listed_and_left_out(folder, capsys):
    for name in ("empty.png", "more.png"):
        (folder / "unlabeled" / name).touch()
    config = init(folder)
    said = capsys.readouterr().out
    assert "2 pictures of --unlabeled cannot be read, and are left out:" in said
    assert "pictures of --unlabeled are labeled" not in said
    for name in ("empty.png", "more.png"):
        assert f"    {folder}/unlabeled/{name} is not a readable image" in said
    listed = config.with_name("mine_unlabeled.txt").read_text().splitlines()
    assert listed == [f"{folder}/unlabeled/unlabeled_{name}.png" for name in "abc"]
    assert yaml.safe_load(config.read_text())["SSOD"]["REGISTER"][1]["IMAGES"] == str(
        config.with_name("mine_unlabeled.txt")
    )


@pytest.mark.parametrize("are_there", [True, False])
def test_unlabeled_pictures_of_which_none_can_be_read_are_refused(folder, capsys, are_there):
    for path in (folder / "unlabeled").iterdir():
        path.write_bytes(b"")
        if not are_there:
            path.unlink()
    argv = ["init", "--labeled", folder / "labeled/instances.json", "-o", folder / "mine.yaml"]
    assert ran(*argv, "--unlabeled", folder / "unlabeled") == 2
    said = "is not a readable image" if are_there else "has no pictures"
    assert said in capsys.readouterr().err


def a_voc_folder(folder, *lists):
    """Two pictures; each list names the first."""
    root = folder / "voc"
    boxes = [("cat", (1, 1, 9, 9), None)]
    for name in ("1", "2"):
        write_voc_image(root, name, boxes)
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for name in lists:
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("1\n")
    return root


def test_lists_of_other_names_are_not_passed_over(folder, capsys):
    """They may be of test images, which would be trained on."""
    root = a_voc_folder(folder, "few", "test")
    argv = ["init", "--unlabeled", folder / "unlabeled", "-o", folder / "mine.yaml"]
    assert ran(*argv, "--labeled", root) == 2
    said = capsys.readouterr().err
    assert "has lists of images (few, test), but no train.txt or trainval.txt" in said
    assert f"name the list itself, one of those in {root}/ImageSets/Main" in said
    assert ran(*argv, "--labeled", root / "ImageSets" / "Main" / "few.txt") == 0
    entry = yaml.safe_load((folder / "mine.yaml").read_text())["SSOD"]["REGISTER"][0]
    assert (entry["VOC"], entry["SPLIT"]) == (str(root), "few")


def test_the_one_list_of_cvat_has_all_images(folder):
    a_voc_folder(folder, "default", "._default")  # macOS leaves such beside a file
    path = init(folder, labeled=("--labeled", "voc"))
    assert "SPLIT" not in yaml.safe_load(path.read_text())["SSOD"]["REGISTER"][0]


@pytest.mark.parametrize("name", ["data.yaml", "_annotations.coco.json"])
def test_a_folder_may_stand_for_the_file_that_describes_it(folder, name):
    if name == "data.yaml":
        (folder / "labeled" / name).write_text("train: .\nnames: [cat]\n")
        for number in range(1, 13):
            (folder / "labeled" / f"{number}.txt").write_text("0 .5 .5 .4 .4\n")
    else:
        (folder / "labeled" / "instances.json").rename(folder / "labeled" / name)
    path = init(folder, labeled=("--labeled", "labeled"))
    entry = yaml.safe_load(path.read_text())["SSOD"]["REGISTER"][0]
    assert str(folder / "labeled" / name) in entry.values()


def test_a_coco_file_of_unlabeled_images_is_named_alone(folder, capsys):
    places = [folder / "val" / "instances.json", folder / "unlabeled"]
    argv = ["init", "--labeled", folder / "labeled" / "instances.json", "--unlabeled", *places]
    assert ran(*argv, "-o", folder / "mine.yaml") == 2
    assert "a COCO file of unlabeled images is named alone" in capsys.readouterr().err


def test_the_short_edge_is_that_of_the_pictures_or_makes_small_objects_large(folder):
    for side, short in ((200, 384), (16, 608), (4, 800)):
        contents = coco_contents(2, boxes=[(10, 10, side, side)], width=600, height=400)
        write_coco(folder / "labeled", contents)
        with catalogs.restored_catalogs():
            written = yaml.safe_load(init(folder, name=f"{side}.yaml").read_text())["INPUT"]
        assert written["MIN_SIZE_TEST"] == short
        assert written["MAX_SIZE_TEST"] == round(short * 1.667)


def test_a_labeled_picture_that_cannot_be_read_is_for_the_check_to_name(folder):
    path = folder / "labeled" / "instances.json"
    contents = json.loads(path.read_text())
    first = contents["images"][0]
    del first["width"], first["height"]
    (folder / "labeled" / first["file_name"]).write_text("no picture")
    path.write_text(json.dumps(contents))
    assert yaml.safe_load(init(folder).read_text())["INPUT"]["MIN_SIZE_TEST"] == 320
