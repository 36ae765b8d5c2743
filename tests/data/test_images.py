import gc
import weakref

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from pictures import cut, save_picture
from PIL import Image, ImageOps

from d2_ssod.data import images
from d2_ssod.data.images import (
    ImageError,
    check_picture,
    map_threaded,
    read_size,
    size_or_error,
)

FORMATS = ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif", "a.webp", "a.ppm"]


@pytest.mark.parametrize("name", FORMATS)
def test_read_size_is_the_size_of_the_decoded_image(tmp_path, name):
    path = save_picture(tmp_path / name, 24, 16)
    assert read_size(path) == check_picture(path) == read_image(str(path), "BGR").shape[:2]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_size_turns_the_image_as_detectron2_does(tmp_path, name, orientation):
    path = save_picture(tmp_path / name, 24, 16, orientation)
    assert read_size(path) == read_image(str(path), "BGR").shape[:2]
    if path.suffix != ".tif":  # Pillow turns TIFFs by itself, and Detectron2 once more
        assert read_size(path) == ((24, 16) if orientation >= 5 else (16, 24))


def test_read_size_does_not_decode(tmp_path):
    assert read_size(cut(save_picture(tmp_path / "a.png", 200, 100))) == (100, 200)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_read_size_ignores_damaged_exif_data(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (24, 16)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_size(path) == (16, 24)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_check_picture_finds_truncated_files(tmp_path, name, share):
    path = cut(save_picture(tmp_path / name, 120, 90), share)
    with pytest.raises(ImageError, match=r"truncated|not a readable image"):
        check_picture(path)


def test_check_picture_accepts_data_after_the_end(tmp_path):
    path = save_picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert check_picture(path) == (16, 24)


def test_check_picture_finds_damage_in_the_middle(tmp_path):
    """Detectron2's reader gives a black picture for it."""
    path = save_picture(tmp_path / "a.png", 120, 90)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="truncated or damaged"):
        check_picture(path)


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.uint16, "a.png"), (np.uint16, "a.tif"), (np.float32, "a.tif")]
)
def test_check_picture_refuses_more_than_8_bits(tmp_path, dtype, name):
    Image.fromarray(np.full((16, 24), 1000, dtype=dtype)).save(tmp_path / name)
    assert (read_image(str(tmp_path / name), "BGR") == 255).all()  # what would be trained on
    with pytest.raises(ImageError, match="more than 8 bits") as caught:
        check_picture(tmp_path / name)
    assert caught.value.kind == "pictures of 16 bits or more"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_check_picture_refuses_what_would_be_turned_twice(tmp_path, orientation):
    path = save_picture(tmp_path / "a.tif", 24, 16, orientation)
    seen, trained = np.asarray(Image.open(path)), read_image(str(path), "RGB")
    assert not np.array_equal(seen, trained)
    with pytest.raises(ImageError, match=rf"TIFF with an orientation \({orientation}\)") as caught:
        check_picture(path)
    assert caught.value.kind == "TIFFs with an orientation"


def test_check_picture_refuses_a_tiff_with_its_orientation_in_xmp(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (24, 16)).save(tmp_path / "a.tif", tiffinfo={700: xmp})
    with pytest.raises(ImageError, match="would be turned twice"):
        check_picture(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "orientations"),
    [("a.tif", (0, 1, 9)), *((f"a.{e}", range(1, 9)) for e in ("jpg", "png", "webp"))],
)
def test_check_picture_accepts_what_is_turned_once(tmp_path, name, orientations):
    for orientation in orientations:
        path = save_picture(tmp_path / name, 24, 16, orientation)
        trained = read_image(str(path), "RGB")
        upright = ImageOps.exif_transpose(Image.open(path))
        assert np.array_equal(np.asarray(upright), trained)
        assert check_picture(path) == trained.shape[:2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_check_picture_accepts_what_can_be_converted(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new(mode, (24, 16)).save(tmp_path / name)
    assert check_picture(tmp_path / name) == (16, 24)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_check_picture_rejects_what_is_no_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="not a readable image"):
        check_picture(path)


def test_missing_file_and_folder_are_named_so(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_size(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a readable image"):
        read_size(tmp_path)


def test_map_threaded_keeps_the_order():
    items = list(np.random.RandomState(0).permutation(2000))
    assert list(map_threaded(lambda i: 2 * i, items, description="x")) == [2 * i for i in items]


def test_map_threaded_shows_a_bar_for_many_items_only(capfd):
    list(map_threaded(abs, range(10), description="Counting"))
    assert "Counting" not in capfd.readouterr().err
    list(map_threaded(abs, range(1000), description="Counting"))
    assert "Counting" in capfd.readouterr().err


@pytest.mark.parametrize(("order", "depth"), [(">", "I;16B"), ("<", "I;16")])
def test_check_picture_refuses_16_bits_of_either_byte_order(tmp_path, order, depth):
    path = tmp_path / "a.tif"
    samples = np.full((16, 24), 1000, dtype=f"{order}u2")
    Image.frombytes(depth, (24, 16), samples.tobytes()).save(path)
    with pytest.raises(ImageError, match="more than 8 bits"):
        check_picture(path)


def test_what_is_wrong_with_a_picture_does_not_hold_it_in_memory(tmp_path, monkeypatch):
    save_picture(tmp_path / "a.png")
    opened, open_ = [], Image.open

    def watched_open(path):
        picture = open_(path)
        opened.append(weakref.ref(picture))
        return picture

    def refuse(picture):
        raise ImageError("is odd", "odd pictures", "replace it")

    monkeypatch.setattr(images.Image, "open", watched_open)
    monkeypatch.setattr(images, "_decode", refuse)
    error = size_or_error(check_picture, str(tmp_path / "a.png"))
    assert (str(error), error.kind, error.remedy) == ("is odd", "odd pictures", "replace it")
    gc.collect()
    assert [picture() for picture in opened] == [None]
