"""The page as a whole, of runs that are made without training."""

import html
import html.parser
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import runs
import yaml
from detectron2.data import DatasetCatalog
from made_run import make_run, metrics
from PIL import Image

from d2_ssod.artifacts import (
    RunFolder,
    TakenFrom,
    digest_of_file,
    record_event,
    record_training,
    save_ensemble_validation,
    save_validation,
    write_taken_from,
)
from d2_ssod.commands import main
from d2_ssod.commands.trained_models import choose_phases
from d2_ssod.engine import default_argument_parser
from d2_ssod.engine.configs.checks import check_config
from d2_ssod.errors import ConfigError
from d2_ssod.report import making, report_run, write_report, write_yolo
from d2_ssod.report.collect import collect
from d2_ssod.report.review import go_on_with


class Page(html.parser.HTMLParser):
    """What a page shows: its text, its tables, and the kinds of its elements."""

    def __init__(self, path):
        super().__init__()
        self.words, self.tables, self.tags, self.sources = [], [], [], []
        self._cell = None
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.sources += [attributes[k] for k in ("src", "href") if k in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = self.tables[-1][-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[-1] = f"{self._cell[-1]} {data.strip()}".strip()
        self.words.append(data)

    def table(self, head):
        """The rows of the table whose head begins with these cells."""
        return next(t[1:] for t in self.tables if t[0][: len(head)] == head)


@pytest.fixture
def cfg(tmp_path):
    return make_run(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "no class"])
def test_without_its_classes_there_is_a_report_of_the_rest(cfg, damage):
    path = RunFolder(cfg.OUTPUT_DIR).classes
    path.unlink() if damage == "missing" else path.write_text('{"thing_classes": []}')
    page = Page(write_report(cfg))
    assert "does not say which classes the run has" in " ".join(page.words)
    assert page.table(["model"])


def test_labels_that_were_changed_in_place_are_counted_as_they_are(cfg):
    path = RunFolder(cfg.OUTPUT_DIR).phase(2).pseudo_labels
    said = "The labels were changed since they were made"
    assert said not in " ".join(Page(write_report(cfg)).words)
    content = json.loads(path.read_text())
    first = content["images"][0]["id"]
    content["images"] = content["images"][1:]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first]
    path.write_text(json.dumps(content))
    words = " ".join(" ".join(Page(write_report(cfg)).words).split())
    images, boxes = len(content["images"]), len(content["annotations"])
    assert f"{images} of 6 unlabeled images are trained on, with {boxes} boxes;" in words
    assert f"{said}: the figures below are of the {images + 1} images as they were." in words
    folder = RunFolder(cfg.OUTPUT_DIR)
    for name, text in (("BOX_RATE", "too many"), ("VALIDATION", "worse")):
        record_event(folder, "guard", name=name, phase=2, text=f"Phase 2: {text}")
    said = set(making.guards_of(collect(cfg)))
    assert {"Before its labels were changed: Phase 2: too many", "Phase 2: worse"} <= said


def test_changes_in_place_are_told_from_labels_that_a_person_has_given(cfg):
    files = RunFolder(cfg.OUTPUT_DIR).phase(2)
    manifest = json.loads(files.manifest.read_text())
    manifest["corrected"] = {"file": "mine.json", "images": 2, "boxes": 0, "images_empty": 2}
    files.manifest.write_text(json.dumps(manifest))
    assert not collect(cfg).phases[2].labels.were_changed  # as far as is known
    manifest["pseudo_labels_sha256"] = digest_of_file(files.pseudo_labels)
    files.manifest.write_text(json.dumps(manifest))
    assert not collect(cfg).phases[2].labels.were_changed
    labels = json.loads(files.pseudo_labels.read_text())
    labels["annotations"][0]["bbox"][2] -= 1
    files.pseudo_labels.write_text(json.dumps(labels))
    assert collect(cfg).phases[2].labels.were_changed


def test_corrections_come_back_beside_those_of_before(cfg, tmp_path):
    said = " ".join(Page(write_report(cfg)).text.split())
    assert "Corrected, it comes back for" in said
    assert "--resume SSOD.PSEUDO_LABEL.CORRECTED file.json" in said
    ids = [image["image_id"] for image in DatasetCatalog.get(cfg.DATASETS.UNLABELED[0])]
    (tmp_path / "rounds").mkdir()
    path = tmp_path / "rounds" / "1.json"
    content = {"images": [{"id": ids[0]}], "annotations": [], "categories": []}
    path.write_text(json.dumps(content))
    for corrected, beside, named in (
        (path, f"put into one folder with {path}", "folder"),
        (path.parent, f"put into {path.parent}", str(path.parent)),
    ):
        cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(corrected)
        said = " ".join(Page(write_report(cfg)).text.split())
        assert f"Corrected, and {beside}, it comes back for" in said
        assert f"--resume SSOD.PSEUDO_LABEL.CORRECTED {named}" in said


def test_weights_of_each_stage_of_a_cascade_are_drawn(cfg):
    path = RunFolder(cfg.OUTPUT_DIR).phase(1).metrics
    names = [f"{stage}roi_weighting/weights_mean" for stage in ("stage0/", "stage2/", "")]
    rows = [{"iteration": n, "total_loss": 1.0, **dict.fromkeys(names, 0.5)} for n in (0, 20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    text = write_report(cfg).read_text()
    for end in (" (stage0/roi_weighting", " (stage1)"):
        assert f"range of 10 to 90 %{end}" not in text
    for end in (" (stage0)", " (stage2)", ""):
        assert f"range of 10 to 90 %{end}" in text


def test_guards_of_earlier_versions_named_the_phase_in_their_text_alone(cfg):
    record_event(RunFolder(cfg.OUTPUT_DIR), "guard", name="BOX_RATE", text="Phase 2: too many")
    assert "Phase 2: too many" in making.guards_of(collect(cfg))


@pytest.mark.parametrize("empty", [None, 0, 4])  # an earlier version has not noted it
def test_counts_of_images_with_a_persons_labels_are_said(cfg, empty):
    path = RunFolder(cfg.OUTPUT_DIR).phase(2).manifest
    manifest = json.loads(path.read_text())
    corrected = {"file": "mine.json", "images": 6, "boxes": 2, "images_empty": empty}
    manifest["corrected"] = {k: v for k, v in corrected.items() if v is not None}
    manifest["selection"] |= {"images": 12, "images_kept": 5}
    manifest["selection"] |= {"images_left_out": 4, "images_empty": 3}
    path.write_text(json.dumps(manifest))
    page = Page(write_report(cfg))
    text = " ".join(page.text.split())
    assert "of 12 unlabeled images are trained on, with " in text
    found = "; 4 of the images have none, and are trained on where DATALOADER.FILTER_EMPTY_ANNOT"
    assert (found in text) == bool(empty)
    assert "boxes: 6 images have a person's labels (2 boxes" in text
    assert "are on 5 images; 4 were left for later, 3 had none." in text


def test_what_guards_have_said_is_of_what_there_is_now(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)

    def guards():
        return making.guards_of(collect(cfg))

    before = guards()
    for phase in (1, 2, 7):
        record_event(folder, "guard", name="VALIDATION", phase=phase, text=f"Phase {phase}: once")
        record_event(folder, "guard", name="VALIDATION", phase=phase, text=f"Phase {phase}: AP")
    assert guards() == ["Phase 1: AP", *before, "Phase 2: AP"]
    record_event(folder, "labeled", phase=1)
    record_event(folder, "labeled", phase=1)  # anew, and nothing is said of the new ones
    for phase, ap in enumerate((60.0, 50.0, 55.0)):  # judged anew
        save_validation(folder, phase, {"AP": ap})
    assert guards() == []
    save_validation(folder, 1, {"AP": 60.0})
    assert guards() == ["Phase 2: AP"]
    record_event(folder, "guard", name="BOX_RATE", phase=2, text="Phase 2: stopped")
    record_event(folder, "started")
    assert guards() == ["Phase 2: AP", "Phase 2: stopped"]
    record_event(folder, "labeled", phase=2)  # by settings that were corrected
    assert guards() == []


def test_figures_are_those_of_the_files(cfg):
    page = Page(write_report(cfg))
    run = RunFolder(cfg.OUTPUT_DIR)
    summary = json.loads(run.summary().read_text())
    rows = page.table(["model", "AP", "AP50"])
    assert [row[2].split()[0] for row in rows] == [
        *(f"{phase['metrics']['AP50']:.1f}" for phase in summary["phases"]),
        *(f"{metrics['AP50']:.1f}" for metrics in summary["ensembles"].values()),
    ]
    assert rows[1] == ["phase 1", "25.0 +5.0", "50.0 +10.0", "12.5 +2.5"]
    classes = page.table(["class", "phase 0"])
    assert classes[1][:4] == ["dog", "43.0", "53.0 +10.0", "41.0 −2.0"]
    manifest = json.loads(run.phase(2).manifest.read_text())
    tables = [t for t in page.tables if t[0][:2] == ["class", "labeled / image"]]
    head, cat, dog = tables[1]
    boxes = manifest["boxes"]
    for row, name in ((cat, "cat"), (dog, "dog")):
        named = dict(zip(head, row, strict=True))
        assert named["kept"] == str(boxes["kept_per_class"][name])
        assert named["consensus"] == str(boxes["after_consensus_per_class"][name])
        source = manifest["sources"]["phase_1/model_final.pth"][name]
        assert named["threshold 1"] == f"{source['threshold']:.2f}"
    assert page.table(["step"])[0] == ["phase 0: training", "90 s", "320"]


def test_it_needs_nothing_else(cfg):
    page = Page(write_report(cfg))
    assert not {"link", "iframe", "object"} & set(page.tags) - {"link"}
    allowed = ("data:", "#", "review/")
    assert all(source.startswith(allowed) for source in page.sources)
    assert page.tags.count("img") > 20
    assert "Phase 1: classes vanish (dog 0.0%)" in page.text


def test_the_sheets_show_what_they_say(cfg):
    page = Page(write_report(cfg))
    assert "Newly added images" in page.text
    assert "Where the models disagree" in page.text
    assert "dog 0.90, labeled cat" in page.text
    queue = page.table(["image", "worth"])
    assert queue[0][0].endswith("unlabeled/6.png")  # where one model sees a second cat
    assert page.table(["image", "problem"])[0][1:] == [
        "other class",
        "dog 0.90, labeled cat",
        "0.90",
    ]


def test_images_that_a_person_has_labeled_are_not_asked_for_again(cfg, tmp_path):
    (first, *_), *others = Page(write_report(cfg)).table(["image", "worth"])
    corrected = tmp_path / "corrected.json"
    images = [{"id": 1, "file_name": first}]
    corrected.write_text(json.dumps({"images": images, "categories": [], "annotations": []}))
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(corrected)
    assert Page(write_report(cfg)).table(["image", "worth"]) == others
    review = RunFolder(cfg.OUTPUT_DIR).review
    before = {path: path.read_bytes() for path in review.glob("queue*")}
    corrected.unlink()  # or the report is made in another folder, and its path is relative
    page = Page(write_report(cfg))
    assert "corrected.json: cannot be read" in page.text
    assert "which images are corrected already is not known" in page.text
    assert {path: path.read_bytes() for path in review.glob("queue*")} == before


def test_a_run_of_which_all_images_are_corrected_has_a_report(cfg, tmp_path):
    rows = Page(write_report(cfg)).table(["image", "worth"])
    images = [{"id": n, "file_name": file} for n, (file, *_) in enumerate(rows)]
    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps({"images": images, "categories": [], "annotations": []}))
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(corrected)
    write_report(cfg)
    content = json.loads((RunFolder(cfg.OUTPUT_DIR).review / "queue.json").read_text())
    assert content["images"] == []


@pytest.mark.parametrize("name", ["queue.csv", "label_errors.csv"])
def test_tables_of_an_older_version_are_set_aside(cfg, name):
    """They have no seal, which would tell whether a person has changed them."""
    write_report(cfg)
    path = RunFolder(cfg.OUTPUT_DIR).review / name
    new = path.read_bytes()
    path.write_bytes(new + b"done by Ann\r\n")
    path.with_name(f"{name}.sha256").unlink()
    write_report(cfg)
    assert path.read_bytes() == new
    assert path.with_name(f"{name}.old").read_bytes() == new + b"done by Ann\r\n"


@pytest.mark.parametrize("name", ["queue.csv", "label_errors.csv"])
def test_tables_that_a_person_works_with_stay(cfg, caplog, name):
    write_report(cfg)
    path = RunFolder(cfg.OUTPUT_DIR).review / name
    noted = path.read_bytes() + b"done by Ann\r\n"
    path.write_bytes(noted)
    write_report(cfg)
    assert path.read_bytes() == noted
    assert f"{path} stays as it is, as it was changed" in caplog.text
    path.unlink()
    write_report(cfg)
    assert path.read_bytes() == noted.removesuffix(b"done by Ann\r\n")


@pytest.mark.parametrize("classes", [["cat"], ["dog", "cat"], ["cat", "dog", "cow"]])
def test_labeled_images_of_other_classes_are_left_out(cfg, tmp_path, classes):
    path = tmp_path / "data" / "labeled" / "instances.json"
    content = json.loads(path.read_text())
    ids = [category["id"] for category in content["categories"]] + [99]
    content["categories"] = [{"id": i, "name": name} for i, name in zip(ids, classes, strict=False)]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == ids[0]]
    path.write_text(json.dumps(content))
    page = Page(write_report(cfg))
    assert "has other classes than the run now" in page.text
    assert page.table(["model", "AP"])


def test_a_picture_that_is_damaged_anyhow_is_shown_as_missing(cfg, tmp_path):
    picture = next((tmp_path / "data" / "unlabeled").glob("*.png"))
    content = picture.read_bytes()
    at = content.index(b"IDAT")
    damaged = content[: at - 4] + (1).to_bytes(4, "big") + content[at:]
    picture.write_bytes(damaged)  # for which Pillow raises SyntaxError
    with pytest.raises(SyntaxError):
        Image.open(picture).load()
    assert "(cannot be read)" in write_report(cfg).read_text()


def test_how_the_run_goes_on_is_a_line_that_works(cfg):
    cfg.SSOD.SCHEDULE.EPOCHS = [48, 17.0, 9]
    cfg.SSOD.SCHEDULE.STEP_EPOCHS = [36.0, (12.8, 15.0), 7]
    text = write_report(cfg).read_text(encoding="utf-8")
    line = html.unescape(re.search(r"<code[^>]*>(--resume .*?)</code>", text)[1])
    assert "SSOD.SCHEDULE.EPOCHS '[48, 17.0, 9, 9]'" in line
    cfg.merge_from_list(default_argument_parser().parse_args(shlex.split(line)).opts)
    check_config(cfg, 1)
    assert cfg.SSOD.NUM_PHASES == 3


def test_the_example_of_the_docs_works(cfg):
    cfg.SSOD.NUM_PHASES = 1
    cfg.SSOD.SCHEDULE.EPOCHS = [48, 17.0]
    cfg.SSOD.SCHEDULE.STEP_EPOCHS = [36.0, 12.8]
    text = (runs.ROOT / "docs" / "report.md").read_text()
    assert "`EPOCHS: [48, 17.0]` and `STEP_EPOCHS: [36.0, 12.8]`" in text
    of_docs = re.search(r"```\n(python -m d2_ssod train[^`]*CORRECTED.*?)```", text, re.DOTALL)
    command = of_docs[1].replace("\\\n", " ")
    assert go_on_with(cfg, "corrected.json") in " ".join(command.split())
    cfg.merge_from_list(default_argument_parser().parse_args(shlex.split(command)[4:]).opts)
    check_config(cfg, 1)


ODD = "<script>alert('x')</script> \"$\\frac{1}{2}$\" & 猫"


def test_names_are_shown_as_text(tmp_path):
    cfg = make_run(tmp_path / "a <b> & 'c'", classes=(ODD, "dog"))
    path = write_report(cfg)
    page = Page(path)
    assert page.tags.count("script") == 1
    assert page.table(["class", "phase 0"])[0][0] == ODD
    assert "b" not in page.tags
    assert "<script>alert" not in path.read_text(encoding="utf-8")
    content = json.loads((RunFolder(cfg.OUTPUT_DIR).review / "queue.json").read_text())
    assert content["categories"][0]["name"] == ODD


def test_an_unfinished_run_has_a_report(cfg):
    run = RunFolder(cfg.OUTPUT_DIR)
    run.summary().unlink()
    shutil.rmtree(run.phase(2).folder)
    page = Page(write_report(cfg))
    assert "2 of 3 phases are trained. The run goes on with --resume." in page.text
    assert "Phase 1" in page.text
    for phase in (0, 1):
        shutil.rmtree(run.phase(phase).folder)
    run.classes.unlink()
    assert "0 of 3 phases are trained." in Page(write_report(cfg)).text


def test_what_is_damaged_or_gone_is_said(cfg):
    run = RunFolder(cfg.OUTPUT_DIR)
    run.phase(1).manifest.write_text("{")
    run.phase(0).predictions.write_text("[1]")
    run.history.write_text("damaged")
    page = Page(write_report(cfg))
    assert f"{run.phase(1).manifest}: not valid JSON" in page.text
    assert f"{run.phase(0).predictions}: detection 0 is no COCO result" in page.text
    assert "phases 0~2 together" in page.text


def test_pictures_that_are_gone_leave_their_place(cfg, tmp_path):
    (tmp_path / "data" / "unlabeled" / "1.png").write_bytes(b"")
    shutil.rmtree(tmp_path / "data" / "labeled")
    page = Page(write_report(cfg))
    assert "labeled" in page.text
    assert page.table(["model", "AP"])[0][0] == "phase 0"


def test_a_run_to_compare_with_is_a_row(cfg, tmp_path):
    other = make_run(tmp_path / "other", ap50=(60.0, 61.0, 62.0))
    page = Page(write_report(cfg, control=other.OUTPUT_DIR))
    assert page.table(["model", "AP"])[-1][:3] == [
        "for comparison: run",
        "31.0 +11.0",
        "62.0 +22.0",
    ]
    words = " ".join(page.words)
    assert "run has learned from unlabeled images itself." in words
    assert "the labels alone were better" not in words
    with pytest.raises(ConfigError, match=r"summary\.json: no such file"):
        write_report(cfg, control=tmp_path)


def test_a_detector_that_learns_from_unlabeled_images_is_no_control_of_labels_alone(cfg, tmp_path):
    other = make_run(tmp_path / "other", ap50=(60.0,))
    for unlabeled in ([], [{"file_name": "1.png"}]):  # as CSD has in phase 0
        record_training(other, 0, [], RunFolder(other.OUTPUT_DIR), unlabeled)
        words = " ".join(Page(write_report(cfg, control=other.OUTPUT_DIR)).words)
        assert ("the labels alone were better" in words) == (not unlabeled)
        assert ("run has learned from unlabeled images itself." in words) == bool(unlabeled)


def test_what_phase_0_has_learned_from_is_known_by_its_detector_or_where_it_was_taken_from(cfg):
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    assert not collect(cfg).has_learned_unlabeled
    cfg.MODEL.META_ARCHITECTURE = "CSD"
    assert collect(cfg).has_learned_unlabeled
    cfg.MODEL.META_ARCHITECTURE = "Mine"  # which a script registers, that is not at hand here
    assert not collect(cfg).has_learned_unlabeled
    for learned in (True, False):
        cfg.MODEL.META_ARCHITECTURE = "SSD" if learned else "CSD"
        write_taken_from(files, TakenFrom("a.pth", "", learned_unlabeled=learned))
        assert collect(cfg).has_learned_unlabeled == learned


def test_nothing_is_said_of_what_a_phase_0_has_learned_from_that_is_of_no_run(cfg, tmp_path):
    worse, other = (
        make_run(tmp_path / name, ap50=ap50)
        for name, ap50 in (("worse", (50.0, 30.0)), ("other", (60.0,)))
    )
    for is_known in (True, False):
        if not is_known:
            for run in (worse, other):
                write_taken_from(RunFolder(run.OUTPUT_DIR).phase(0), TakenFrom("a.pth", ""))
        alone = " ".join(Page(write_report(worse)).words)
        compared = " ".join(Page(write_report(cfg, control=other.OUTPUT_DIR)).words)
        assert ("trained on the labeled images alone" in alone) == is_known
        assert ("the labels alone were better" in compared) == is_known
        assert "has learned from unlabeled images itself" not in compared
    for phase, ap in enumerate((50.0, 30.0, 20.0)):  # and so where validation images choose
        save_validation(RunFolder(worse.OUTPUT_DIR), phase, {"AP": ap, "AP50": ap})
    text = Page(write_report(worse, control=other.OUTPUT_DIR)).text
    assert "Use phase 0: chosen by AP on the validation images" in text
    assert "phase 0 has learned from the labels alone, too" not in text


def test_a_comparison_with_a_run_of_other_labels_is_said_to_be_one(cfg, tmp_path):
    other = make_run(tmp_path / "other")
    for run in (cfg, other):
        folder = RunFolder(run.OUTPUT_DIR)
        record_event(folder, "evaluated", data="made_test", judged_by="the same")
    for run, count in ((cfg, 1), (other, 1), (other, 2)):
        labeled = [{"file_name": f"{n}.png"} for n in range(count)]
        record_training(run, 0, labeled, RunFolder(run.OUTPUT_DIR))
        words = " ".join(Page(write_report(cfg, control=other.OUTPUT_DIR)).words)
        assert ("was trained on other labeled images" in words) == (count == 2)
    RunFolder(other.OUTPUT_DIR).phase(0).trained_with.write_text("{")
    words = " ".join(Page(write_report(cfg, control=other.OUTPUT_DIR)).words)
    assert "not valid JSON" in words
    assert "was trained on other labeled images" not in words


def test_results_on_other_test_images_are_not_compared_with(cfg, tmp_path):
    other = make_run(tmp_path / "other", ap50=(60.0, 61.0, 62.0))
    path = RunFolder(other.OUTPUT_DIR).summary()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"dataset": "other_test"}))
    with pytest.raises(ConfigError, match="was judged on other test images"):
        write_report(cfg, control=other.OUTPUT_DIR)
    path.write_text(json.dumps(content))
    for run in (other, cfg):
        folder = RunFolder(run.OUTPUT_DIR)
        record_event(folder, "evaluated", data="made_test", judged_by=f"{run.OUTPUT_DIR}")
        if run is other:
            with pytest.raises(ConfigError, match=f"how {cfg.OUTPUT_DIR} was judged is not known"):
                write_report(cfg, control=other.OUTPUT_DIR)
    with pytest.raises(ConfigError, match="or with other settings of inference"):
        write_report(cfg, control=other.OUTPUT_DIR)
    for run in (cfg, other):
        folder = RunFolder(run.OUTPUT_DIR)
        record_event(folder, "evaluated", data="made_test", judged_by="the same")
    path.rename(path.with_name("summary_more.json"))
    path.write_text(json.dumps(content))  # of several, the one that is alike
    assert "62.0 +22.0" in Page(write_report(cfg, control=other.OUTPUT_DIR)).text


def test_before_anything_is_judged_nothing_is_compared(cfg, tmp_path):
    other = make_run(tmp_path / "other")
    RunFolder(cfg.OUTPUT_DIR).summary().unlink()
    text = Page(write_report(cfg, control=other.OUTPUT_DIR)).text
    assert f"{other.OUTPUT_DIR} is not compared with" in text


def test_results_are_of_the_test_images_that_the_config_names_now(cfg):
    run = RunFolder(cfg.OUTPUT_DIR)
    cfg.DATASETS.TEST = ("new_test",)
    page = Page(write_report(cfg))
    assert f"{run.summary()} is of made_test, not of new_test (DATASETS.TEST)" in page.text
    assert "On made_test" not in page.text
    with pytest.raises(ConfigError, match=r"is of made_test, not of new_test \(DATASETS.TEST\)"):
        choose_phases(cfg, "best")
    content = json.loads(run.summary().read_text()) | {"dataset": "new_test"}
    run.summary("new_test").write_text(json.dumps(content))
    assert "On new_test" in Page(write_report(cfg)).text


def test_results_of_some_phases_are_said_to_be(cfg):
    run = RunFolder(cfg.OUTPUT_DIR)
    content = json.loads(run.summary().read_text())
    partial = content | {"phases": content["phases"][:2], "ensembles": {}}
    run.summary().write_text(json.dumps(partial))
    said = "On test images phases 0, 1 alone were judged (train_net.py --eval-only)."
    assert said in Page(write_report(cfg)).text
    with pytest.raises(ConfigError, match="phase 2 is trained, but not judged on the test images"):
        choose_phases(cfg, "best")
    run.phase(2).model.unlink()
    assert "2 of 3 phases are trained. The run goes on" in Page(write_report(cfg)).text
    assert choose_phases(cfg, "best") == [1]


def judge_by_validation(cfg, ap50, judged_by="these"):
    run = RunFolder(cfg.OUTPUT_DIR)
    run.summary().unlink(missing_ok=True)
    for phase, value in enumerate(ap50):
        save_validation(run, phase, metrics(value, **{"AP-cat": value}), judged_by)
    save_ensemble_validation(run, 2, {"0~N": metrics(ap50[-1] + 9)}, judged_by)


def test_without_test_images_the_tables_are_of_the_validation_images(cfg):
    cfg.DATASETS.VAL = ("val", "more")
    judge_by_validation(cfg, (40.0, 50.0, 38.0))
    page = Page(write_report(cfg))
    assert "On val, more (validation images, by which the best model is chosen)" in page.text
    rows = page.table(["model", "AP"])
    assert [row[0] for row in rows] == ["phase 0", "phase 1", "phase 2", "phases 0~2 together"]
    assert rows[1][1] == "25.0 +5.0"
    assert page.table(["class", "phase 0"])[0][:3] == ["cat", "40.0", "50.0 +10.0"]


def test_without_test_images_a_run_that_was_judged_alike_is_compared_with(cfg, tmp_path):
    judge_by_validation(cfg, (40.0, 50.0, 38.0))
    other = make_run(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"phase_0/validation\.json: no such file"):
        write_report(cfg, control=other.OUTPUT_DIR)
    judge_by_validation(other, (60.0,), "those")
    with pytest.raises(ConfigError, match="was judged on other validation images"):
        write_report(cfg, control=other.OUTPUT_DIR)
    judge_by_validation(other, (60.0,))
    page = Page(write_report(cfg, control=other.OUTPUT_DIR))
    (control,) = [row for row in page.table(["model", "AP"]) if "comparison" in row[0]]
    assert control[:3] == ["for comparison: run", "30.0 +10.0", "60.0 +20.0"]


def test_the_command_writes_it(cfg, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["report", cfg.OUTPUT_DIR, "--images", "2"])
    assert exit_.value.code == 0
    run = RunFolder(cfg.OUTPUT_DIR)
    assert capsys.readouterr().out == f"Report: {run.report}\n"
    assert run.report.exists()
    assert len(json.loads((run.review / "queue.json").read_text())["images"]) == 2
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(run.review)])
    assert exit_.value.code == 2


def test_pseudo_labels_come_as_yolo_files(cfg, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["report", cfg.OUTPUT_DIR, "--yolo", str(tmp_path / "yolo")])
    assert exit_.value.code == 0
    labels = json.loads(RunFolder(cfg.OUTPUT_DIR).phase(2).pseudo_labels.read_text())
    files = sorted((tmp_path / "yolo" / "labels").iterdir())
    assert len(files) == len(labels["images"])
    x, y, w, h = labels["annotations"][0]["bbox"]
    first = labels["images"][0]["file_name"].rpartition("/")[2].replace("png", "txt")
    expected = [0, (x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64]
    line = (tmp_path / "yolo" / "labels" / first).read_text()
    assert [float(part) for part in line.split()] == pytest.approx(expected, abs=1e-5)
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert data["names"] == {0: "cat", 1: "dog"}
    for name in ("data.yaml", "labels"):  # of anybody
        with pytest.raises(ConfigError, match=rf"{name} exists, and may have somebody's labels"):
            write_yolo(cfg, tmp_path / "yolo")
        (tmp_path / "yolo" / "data.yaml").unlink(missing_ok=True)
    for phase in (1, 2):
        RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels.unlink()
    with pytest.raises(ConfigError, match="no pseudo-labels to write"):
        write_yolo(cfg, tmp_path / "none")


def test_uncertain_boxes_are_no_labels_of_yolo(cfg, tmp_path, caplog):
    path = RunFolder(cfg.OUTPUT_DIR).phase(2).pseudo_labels
    labels = json.loads(path.read_text())
    of = {image["id"]: image["file_name"] for image in labels["images"]}
    first = labels["annotations"][0]["image_id"]
    for annotation in labels["annotations"]:
        annotation["tier"] = "certain" if annotation["image_id"] == first else "uncertain"
    labels["annotations"].append({**labels["annotations"][0], "id": 999, "tier": "uncertain"})
    path.write_text(json.dumps(labels))
    write_yolo(cfg, tmp_path / "yolo")
    uncertain = [a for a in labels["annotations"] if a["tier"] == "uncertain"]
    assert f"{len(uncertain)} uncertain boxes (SSOD.LABELS: tiers) are left out" in caplog.text
    (file,) = (tmp_path / "yolo" / "labels").iterdir()
    assert file.stem == Path(of[first]).stem
    certain = len(labels["annotations"]) - len(uncertain)
    assert len(file.read_text().splitlines()) == certain
    labels["images"][1]["corrected"] = True  # a person has found nothing there
    second = labels["images"][1]["id"]
    labels["annotations"] = [a for a in labels["annotations"] if a["image_id"] != second]
    path.write_text(json.dumps(labels))
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    write_yolo(cfg, tmp_path / "again")
    files = {path.stem: path.read_text() for path in (tmp_path / "again" / "labels").iterdir()}
    assert files[Path(of[second]).stem] == ""
    assert len(files) == 2


def test_a_report_that_fails_ends_no_run(cfg, caplog, monkeypatch):
    monkeypatch.setattr("d2_ssod.report.page.collect", lambda *args: 1 / 0)
    report_run(cfg)
    assert "The report could not be written: ZeroDivisionError" in caplog.text
    caplog.clear()
    cfg.SSOD.REPORT = False
    report_run(cfg)
    assert caplog.text == ""


def test_the_same_files_give_the_same_page(cfg):
    first, second = (write_report(cfg).read_text(encoding="utf-8") for _ in range(2))
    time = re.compile(r'<p class="soft">.*\d{2}:\d{2}.*</p>')
    assert time.sub("", first, 1) == time.sub("", second, 1)


def test_as_many_image_passes_are_said_not_to_be_alike(cfg, tmp_path):
    other = make_run(tmp_path / "other")
    folder = RunFolder(other.OUTPUT_DIR)
    record_event(folder, "trained", phase=1, iterations=100, images_per_batch=8, seconds=9.0)
    record_event(folder, "evaluated", data="made_test")  # by a version that notes no more
    said = "run was trained on 1120 images, each time counted, this run on 320"
    assert said in Page(write_report(cfg, control=other.OUTPUT_DIR)).text
    taken = TakenFrom("a.pth", sha256="")  # by how many images it was trained is not known then
    write_taken_from(folder.phase(0), taken)
    assert said not in Page(write_report(cfg, control=other.OUTPUT_DIR)).text


def test_shares_of_classes_are_of_all_boxes_and_objects(cfg):
    tables = Page(write_report(cfg)).tables
    head, *rows = next(t for t in tables if t[0][:2] == ["class", "labeled / image"])
    rows = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["share kept"] for row in rows] == ["100.0 %", "0.0 %"]
    assert [row["share labeled"] for row in rows] == ["100.0 %", "0.0 %"]


def test_each_environment_is_named_once(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    for version in ("2.0", "3.0", "2.0"):
        record_event(folder, "started", torch=version, processes=1)
    assert [start["torch"] for start in making.starts_of(collect(cfg))] == ["2.0", "3.0"]


def test_a_phase_that_is_hardly_worse_is_not_said_to_be(cfg):
    record_event(RunFolder(cfg.OUTPUT_DIR), "guard", name="VALIDATION", phase=1, text="once")
    for ap, is_said in ((39.4, True), (39.6, False)):
        for phase, value in enumerate((40.0, ap, 50.0)):
            save_validation(RunFolder(cfg.OUTPUT_DIR), phase, {"AP": value})
        assert ("once" in making.guards_of(collect(cfg))) == is_said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(99, "99 s"), (100, "2 min"), (99 * 60, "99 min"), (6000, "1 h 40 min"), (7500, "2 h 05 min")],
)
def test_times_are_written_for_people(seconds, text):
    assert making.duration(seconds) == text


def test_all_that_was_set_aside_is_kept(cfg):
    write_report(cfg)
    path = RunFolder(cfg.OUTPUT_DIR).review / "queue.csv"
    for text in ("first", "second", "third"):
        path.write_text(text)
        path.with_name("queue.csv.sha256").unlink()
        write_report(cfg)
    kept = {file.name: file.read_text() for file in path.parent.glob("queue.csv.old*")}
    assert kept == {"queue.csv.old": "first", "queue.csv.old1": "second", "queue.csv.old2": "third"}


def test_a_table_with_a_damaged_seal_stays(cfg, caplog):
    write_report(cfg)
    path = RunFolder(cfg.OUTPUT_DIR).review / "queue.csv"
    path.with_name("queue.csv.sha256").write_bytes(b"\xff")
    write_report(cfg)
    assert f"{path} stays as it is" in caplog.text
