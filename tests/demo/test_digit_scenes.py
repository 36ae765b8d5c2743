import hashlib
import json
import multiprocessing
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from d2_ssod.demo import digit_scenes
from d2_ssod.demo.digit_scenes import __main__ as command_line
from d2_ssod.demo.digit_scenes import scene as composition
from d2_ssod.demo.digit_scenes import writer
from d2_ssod.demo.digit_scenes.canvas import Canvas, Layer
from d2_ssod.demo.digit_scenes.digits import (
    CLASSES,
    DISTRACTORS,
    ink_of,
    render_digit,
    split_scans,
)
from d2_ssod.errors import ConfigError

SIZES = {"labeled": 6, "unlabeled": 8, "test": 10, "val": 4}
SHARES = {name: split.scan_share for name, split in writer.SPLITS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return digit_scenes.generate(tmp_path_factory.mktemp("data") / "scenes", sizes=SIZES)


@pytest.fixture(scope="module")
def pools():
    return split_scans(0, SHARES)


def contents_of(folder, name):
    return json.loads(digit_scenes.annotation_file(folder, name).read_text())


def compose(level, number, pool):
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([99, level, number])))
    return composition.render_scene(rng, pool, level)


# ---------------------------------------------------------------- the pictures


def fingerprint():
    """Of a few pictures of every split, their boxes included."""
    pools = split_scans(0, SHARES)
    digest = hashlib.sha256()
    for split in writer.SPLITS:
        for index in range(4):
            pixels, image, annotations = writer.scene(0, split, index, pools[split])
            digest.update(pixels.tobytes())
            digest.update(json.dumps([image, annotations]).encode())
    return digest.hexdigest()


def test_pictures_are_the_same_on_every_machine():
    # Changing a picture makes other data: then raise writer.VERSION together with this value.
    assert writer.VERSION == 1
    assert fingerprint() == "0d6a88aacb3d1e9d381f50372459eb561d6780207f889ee4f475817335c89388"


def test_pictures_do_not_depend_on_the_process_or_global_seed():
    np.random.seed(5)
    script = "import sys; sys.path[:0] = sys.argv[1:]; import test_digit_scenes as t;"
    script += "print(t.fingerprint())"
    command = [sys.executable, "-W", "ignore", "-c", script, *import_paths()]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    assert other == fingerprint()


def import_paths():
    from pathlib import Path

    return [str(Path(__file__).parent), str(Path(__file__).parents[2])]


def test_seed_and_index_change_the_picture(pools):
    first = writer.scene(0, "test", 0, pools["test"])[0]
    assert not np.array_equal(first, writer.scene(1, "test", 0, pools["test"])[0])
    assert not np.array_equal(first, writer.scene(0, "test", 1, pools["test"])[0])


def test_scans_of_the_splits_are_disjoint_and_complete(pools):
    for digit in CLASSES + DISTRACTORS:
        dealt = np.concatenate([pool.scans[digit] for pool in pools.values()])
        assert len(dealt) == len(set(dealt.tolist()))
        assert min(len(pool.scans[digit]) for pool in pools.values()) >= 15
    everything = [s for p in pools.values() for scans in p.scans.values() for s in scans.tolist()]
    assert sorted(everything) == list(range(1797))


def test_scans_are_of_the_digit_they_are_dealt_as(pools):
    from sklearn.datasets import load_digits

    targets = load_digits().target
    for pool in pools.values():
        for digit, scans in pool.scans.items():
            assert set(targets[scans].tolist()) == {digit}


@pytest.mark.parametrize("level", [0, 300, 499, 500, 800, 1000])
def test_number_of_objects_follows_difficulty(pools, level):
    low, high = (1, 3) if level < 500 else (2, 5)
    counts = [len(compose(level, n, pools["test"])[1]) for n in range(40)]
    assert all(low <= count <= high for count in counts)
    assert len(set(counts)) == high - low + 1


@pytest.mark.parametrize("level", [0, 600, 1000])
def test_objects_are_classes_of_the_pool_and_stay_visible(pools, level):
    for number in range(20):
        pixels, objects = compose(level, number, pools["val"])
        assert pixels.shape == (128, 128, 3)
        assert pixels.dtype == np.uint8
        for painted in objects:
            assert painted.digit in CLASSES
            assert painted.scan in pools["val"].scans[painted.digit]
            shown = np.count_nonzero(painted.visible)
            assert shown * 100 >= composition.MIN_VISIBLE * painted.ink_pixels


def test_least_visible_part_is_kept_whatever_it_is(pools, monkeypatch):
    monkeypatch.setattr(composition, "MIN_VISIBLE", 95)
    for number in range(40):
        for painted in compose(1000, number, pools["val"])[1]:
            assert np.count_nonzero(painted.visible) * 100 >= 95 * painted.ink_pixels


def test_boxes_are_tight_around_visible_ink_and_inside(pools):
    for number in range(30):
        for painted in compose(900, number, pools["test"])[1]:
            x0, y0, x1, y1 = painted.box()
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128
            inside = painted.visible[y0:y1, x0:x1]
            assert np.count_nonzero(inside) == np.count_nonzero(painted.visible)
            assert all(e.any() for e in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_easy_boxes_show_where_the_picture_differs_from_the_ground(pools):
    # At difficulty 0 an object is opaque and nothing overlaps it: its ink must be in the pixels.
    for number in range(10):
        pixels, objects = compose(0, number, pools["test"])
        grey = pixels.astype(int)
        for painted in objects:
            x0, y0, x1, y1 = painted.box()
            ink = grey[painted.visible].mean(axis=0)
            around = grey[y0:y1, x0:x1][~painted.visible[y0:y1, x0:x1]]
            if len(around) > 20:
                assert np.abs(ink - around.mean(axis=0)).max() > 25


def test_sizes_span_the_stated_range(pools):
    sides = []
    for level in range(0, 1001, 20):
        for painted in compose(level, 0, pools["test"])[1]:
            x0, y0, x1, y1 = painted.box()
            sides.append(max(x1 - x0, y1 - y0))
    assert 18 <= np.percentile(sides, 5) <= 24
    assert 48 <= np.percentile(sides, 98) <= 68
    assert max(sides) <= 80


def test_hard_pictures_are_noisier(pools):
    def roughness(level):
        pixels = [compose(level, n, pools["test"])[0].astype(int) for n in range(12)]
        return np.mean([np.abs(np.diff(p, axis=0)).mean() for p in pixels])

    assert roughness(1000) > 1.5 * roughness(0)


@pytest.mark.parametrize("degrees", [-36, 0, 36])
def test_rendered_digits_are_cut_to_their_ink(degrees):
    for scan in (0, 1, 700, 1796):
        alpha = render_digit(scan, 40, degrees, 50)
        assert all(e.any() for e in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
        assert alpha.max() == 255
        assert 20 <= max(alpha.shape) <= 62


def test_rendered_digit_turns_counter_clockwise():
    one = next(int(s) for s in split_scans(0, {"all": 100})["all"].scans[1])
    upright, turned = (ink_of(render_digit(one, 60, degrees, 0)) for degrees in (0, 30))

    def lean(ink):  # column of the ink's middle: the upper half's against the lower half's
        half = ink.shape[0] // 2
        upper, lower = np.nonzero(ink[:half])[1].mean(), np.nonzero(ink[half:])[1].mean()
        return upper - lower

    assert lean(turned) < lean(upright) - 5


def test_bolder_digits_have_more_ink():
    thin, bold = (np.count_nonzero(ink_of(render_digit(3, 40, 0, b))) for b in (0, 100))
    assert bold > 1.15 * thin


# ---------------------------------------------------------------- the canvas


def solid(size, x, y, opacity=100):
    return Layer(np.full((size, size), 255, np.uint8), x, y, np.array([200, 100, 0]), opacity)


def test_canvas_clips_layers_and_keeps_the_visible_part():
    canvas = Canvas(np.zeros((20, 20, 3), np.int64))
    canvas.paint_object(solid(8, -3, 15), digit=1, scan=2)
    painted = canvas.objects[0]
    assert painted.box() == (0, 15, 5, 20)
    assert painted.ink_pixels == 64
    assert canvas.pixels[15:, :5].tolist() == [[[200, 100, 0]] * 5] * 5
    assert canvas.pixels[:15].sum() == canvas.pixels[:, 5:].sum() == 0


def test_canvas_takes_what_is_covered_from_objects():
    canvas = Canvas(np.zeros((20, 20, 3), np.int64))
    canvas.paint_object(solid(10, 0, 0), digit=1, scan=2)
    half = solid(10, 5, 0)
    assert canvas.keeps_objects_visible(half, 50)
    assert not canvas.keeps_objects_visible(half, 51)
    canvas.paint(half)
    assert canvas.objects[0].box() == (0, 0, 5, 10)


def test_canvas_sees_through_faint_layers():
    canvas = Canvas(np.zeros((20, 20, 3), np.int64))
    canvas.paint_object(solid(10, 0, 0), digit=1, scan=2)
    canvas.paint(solid(10, 5, 0, opacity=40))
    assert canvas.objects[0].box() == (0, 0, 10, 10)
    assert canvas.pixels[0, 12].tolist() == [80, 40, 0]


def test_canvas_layer_outside_changes_nothing():
    canvas = Canvas(np.zeros((20, 20, 3), np.int64))
    outside = solid(5, 25, -30)
    canvas.paint(outside)
    assert canvas.visible_percent(outside) == 0
    assert canvas.pixels.sum() == 0


# ---------------------------------------------------------------- the files


def test_files_hold_what_was_asked_for(folder):
    for split, count in SIZES.items():
        contents = contents_of(folder, split)
        assert len(contents["images"]) == count
        for image in contents["images"]:
            assert 0 <= image["difficulty"] <= 1
            with Image.open(digit_scenes.image_folder(folder, split) / image["file_name"]) as png:
                assert (png.format, png.mode, png.size) == ("PNG", "RGB", (128, 128))
        assert [c["name"] for c in contents["categories"]] == ["0", "1", "2", "3", "4"]
    assert "CC BY 4.0" in (folder / "README.txt").read_text()


def test_files_show_the_generated_pictures(folder, pools):
    image = contents_of(folder, "test")["images"][7]
    pixels = writer.scene(0, "test", 7, pools["test"])[0]
    with Image.open(digit_scenes.image_folder(folder, "test") / image["file_name"]) as png:
        assert np.array_equal(np.asarray(png), pixels)


def test_annotations_are_consistent(folder):
    for name in ("labeled", "test", "val", digit_scenes.HIDDEN_TRUTH):
        contents = contents_of(folder, name)
        ids = {image["id"] for image in contents["images"]}
        assert {a["image_id"] for a in contents["annotations"]} == ids
        numbers = [a["id"] for a in contents["annotations"]]
        assert numbers == list(range(1, len(numbers) + 1))
        for annotation in contents["annotations"]:
            x, y, w, h = annotation["bbox"]
            assert annotation["category_id"] in range(1, 6)
            assert x >= 0
            assert y >= 0
            assert min(w, h) > 0
            assert max(x + w, y + h) <= 128
            assert annotation["area"] == w * h


def test_image_ids_are_unique_over_all_splits(folder):
    ids = [image["id"] for split in SIZES for image in contents_of(folder, split)["images"]]
    assert len(ids) == len(set(ids))


def test_unlabeled_file_does_not_hold_the_truth(folder):
    unlabeled = contents_of(folder, "unlabeled")
    truth = contents_of(folder, digit_scenes.HIDDEN_TRUTH)
    assert unlabeled["annotations"] == []
    assert unlabeled["images"] == truth["images"]
    assert len(truth["annotations"]) >= len(truth["images"])


def test_annotated_scans_are_disjoint_between_files(folder):
    names = ("labeled", digit_scenes.HIDDEN_TRUTH, "test", "val")
    scans = [{a["scan"] for a in contents_of(folder, name)["annotations"]} for name in names]
    assert sum(map(len, scans)) == len(set().union(*scans))


def test_generate_leaves_a_complete_folder_alone(folder):
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    digit_scenes.generate(folder, sizes=SIZES)
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_generate_refuses_a_folder_of_something_else(tmp_path, folder):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "half.png").write_text("")
    with pytest.raises(ConfigError, match="delete the folder"):
        digit_scenes.generate(tmp_path / "scenes", sizes=SIZES)
    assert (tmp_path / "scenes" / "half.png").exists()
    with pytest.raises(ConfigError, match="seed 3"):
        digit_scenes.generate(folder, sizes=SIZES, seed=3)


def test_generate_fills_an_empty_folder(tmp_path):
    (tmp_path / "scenes").mkdir()
    sizes = dict.fromkeys(SIZES, 1)
    assert contents_of(digit_scenes.generate(tmp_path / "scenes", sizes=sizes), "val")["images"]


def test_generate_names_the_folder_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="DETECTRON2_DATASETS"):
        digit_scenes.generate(tmp_path / "file" / "scenes", sizes=SIZES)


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_annotations", interrupt)
    with pytest.raises(KeyboardInterrupt):
        digit_scenes.generate(tmp_path / "scenes", sizes=dict.fromkeys(SIZES, 1))
    assert [p.name for p in tmp_path.iterdir()] == [".scenes.lock"]


def generate_without_waiting(path, barrier):
    """As on a file system without locks: nobody waits for anybody."""
    writer.fcntl.flock = refuse_lock
    write_all = writer._write_all

    def write_together(*args, **kwargs):
        write_all(*args, **kwargs)
        barrier.wait(timeout=60)  # all are about to rename

    writer._write_all = write_together
    digit_scenes.generate(path, sizes=dict.fromkeys(SIZES, 2))


def refuse_lock(*args):
    raise OSError("no locks here")


def test_processes_that_generate_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    arguments = (tmp_path / "scenes", barrier)
    workers = [context.Process(target=generate_without_waiting, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(90)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".scenes.lock", "scenes"]
    assert len(contents_of(tmp_path / "scenes", "test")["images"]) == 2


def test_second_process_waits_for_the_first(tmp_path, monkeypatch):
    calls = []
    write_all = writer._write_all

    def slowly(*args, **kwargs):
        calls.append(args)
        time.sleep(0.3)
        write_all(*args, **kwargs)

    monkeypatch.setattr(writer, "_write_all", slowly)
    from concurrent.futures import ThreadPoolExecutor

    sizes = dict.fromkeys(SIZES, 1)
    with ThreadPoolExecutor(3) as pool:
        generate = digit_scenes.generate
        for job in [pool.submit(generate, tmp_path / "scenes", sizes=sizes) for _ in range(3)]:
            job.result(timeout=60)
    assert len(calls) == 1


def test_generation_takes_seconds(pools):
    start = time.process_time()
    for index in range(60):
        writer.scene(0, "test", index, pools["test"])
    assert (time.process_time() - start) / 60 * 1700 < 60  # about 7 s on an idle core


# ---------------------------------------------------------------- the command line


def test_command_line_writes_data_and_preview(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "DEFAULT_SIZES", dict.fromkeys(SIZES, 3))
    preview = tmp_path / "sheet.png"
    arguments = ["--output", str(tmp_path / "scenes"), "--seed", "4", "--preview", str(preview)]
    assert command_line.main(arguments) == 0
    assert len(contents_of(tmp_path / "scenes", "labeled")["images"]) == 3
    with Image.open(preview) as sheet:
        assert sheet.size == (3 * 256, 256 + 14)
        assert (255, 255, 0) in {color for _, color in sheet.getcolors(1 << 24)}


def test_command_line_reports_a_folder_it_cannot_use(tmp_path, caplog):
    (tmp_path / "something").write_text("")
    assert command_line.main(["--output", str(tmp_path)]) == 1
    assert "delete the folder" in caplog.text
