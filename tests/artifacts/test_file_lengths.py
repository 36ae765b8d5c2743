"""Lengths of pictures' files."""

from pictures import save_picture

from d2_ssod.artifacts import file_lengths, forget_lengths
from d2_ssod.artifacts.file_lengths import lengths_of


def test_each_file_is_looked_at_once_however_it_is_named(tmp_path, monkeypatch):
    looked, length = [], file_lengths._length
    monkeypatch.setattr(file_lengths, "_length", lambda path: looked.append(path) or length(path))
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "a.png")
    names = [str(tmp_path / "a.png"), "a.png", "gone.png", "./a.png"]
    size = (tmp_path / "a.png").stat().st_size
    forget_lengths()
    for name in names:
        assert lengths_of([{"file_name": name}]) == (-1 if name == "gone.png" else size,)
    assert lengths_of([{"file_name": name} for name in names]) == (size, size, -1, size)
    assert sorted(looked) == [str(tmp_path / "a.png"), str(tmp_path / "gone.png")]
    forget_lengths()
    (tmp_path / "a.png").write_bytes(b"abc")
    assert lengths_of([{"file_name": "a.png"}]) == (3,)
