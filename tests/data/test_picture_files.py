"""Files of pictures are read by name from folders and zips."""

import pickle
import zipfile

import pytest

from hf_galaxy.data import picture_files
from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.errors import BadInput


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_folder_and_a_zip_are_read_by_name(tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/a.jpg").write_bytes(b"A")
    (tmp_path / "folder/b.jpg").write_bytes(b"B")
    archive = zipped(tmp_path / "c.zip", {"deep/a.jpg": b"A", "b.jpg": b"B"})
    for source in (tmp_path / "folder", archive):
        found = Pictures([source])
        assert str(found) == str(source)
        for name, content in [("deep/a.jpg", b"A"), ("./b.jpg", b"B")]:
            assert name in found
            assert found.read(name) == content
        for name in ("a.jpg", "deep", "deep/", "", ".", "x" * 5000, "nul\0", "deep/../b.jpg"):
            assert name not in found


def test_the_top_folder_of_a_zip_may_be_left_out(tmp_path):
    members = {"top/a.jpg": b"A", "top/top/a.jpg": b"inner", "top/deep/b.jpg": b"B", "__MACOSX/top/._a.jpg": b"note"}
    found = Pictures([zipped(tmp_path / "c.zip", members)])
    for name, content in [("top/a.jpg", b"A"), ("a.jpg", b"A"), ("deep/b.jpg", b"B"), ("top/top/a.jpg", b"inner")]:
        assert found.read(name) == content
    assert "b.jpg" not in found
    two = Pictures([zipped(tmp_path / "d.zip", {"top/a.jpg": b"A", "other/b.jpg": b"B"})])
    assert "top/a.jpg" in two
    assert "a.jpg" not in two


def test_the_first_of_several_sources_wins(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"folder")
    archive = zipped(tmp_path / "c.zip", {"a.jpg": b"zip", "b.jpg": b"B"})
    assert Pictures([tmp_path, archive]).read("a.jpg") == b"folder"
    assert Pictures([archive, tmp_path]).read("a.jpg") == b"zip"
    both = Pictures([tmp_path, archive])
    assert both.read("b.jpg") == b"B"
    assert str(both) == f"{tmp_path}, {archive}"


def test_names_that_leave_the_folder_are_not_there(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(b"S")
    archive = zipped(tmp_path / "c.zip", {"../secret": b"S", "/secret": b"S", "a.jpg": b"A"})
    found = Pictures([tmp_path / "folder", archive])
    for name in ("../secret", "/secret", str(tmp_path / "secret"), "folder/../../secret"):
        assert name not in found
        with pytest.raises(BadInput, match=r"secret: cannot be read as a picture \(is not in .*folder, .*c\.zip\)$"):
            found.read(name)


def test_pictures_travel_to_other_processes(tmp_path):
    found = Pictures([zipped(tmp_path / "c.zip", {"a.jpg": b"A"}), tmp_path])
    assert found.read("a.jpg") == b"A"
    there = pickle.loads(pickle.dumps(found))
    assert not there._archives
    assert there.read("a.jpg") == b"A"
    opened = there._archive(tmp_path / "c.zip")[0]
    there._process -= 1  # as after a fork
    assert there.read("a.jpg") == b"A"
    assert there._archive(tmp_path / "c.zip")[0] is not opened


def test_sources_and_members_that_are_no_good(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no zip")
    for source, problem in (
        ("notes.txt", "is neither a folder nor a zip file"),
        ("missing", "no such folder or zip file"),
    ):
        with pytest.raises(BadInput, match=rf"^--images {tmp_path / source}: {problem}$"):
            Pictures([tmp_path, tmp_path / source])
    archive = zipped(tmp_path / "c.zip", {"a.jpg": bytes(100), "b.jpg": bytes(101)})
    content = bytearray(archive.read_bytes())
    content[60] ^= 255
    archive.write_bytes(content)
    monkeypatch.setattr(picture_files, "MAX_BYTES", 100)
    with pytest.raises(BadInput, match=r"c\.zip/a\.jpg: cannot be read as a picture \(Bad CRC-32"):
        Pictures([archive]).read("a.jpg")
    with pytest.raises(BadInput, match=r"c\.zip/b\.jpg: cannot be read as a picture \(is larger than 1 GiB\)$"):
        Pictures([archive]).read("b.jpg")
