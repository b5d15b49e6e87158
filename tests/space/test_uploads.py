"""Files, zips and tables become pictures one by one; nothing in them stops the others, costs much, or is written to disk."""

import io
import itertools
import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import uploads
from hf_galaxy.cutouts.services import LegacySurveys
from uploads import Picture, Rejected, read_pictures

GALAXY = np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def png(pixels=GALAXY):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def said(files):
    """(name, reason or None) of each."""
    read = [*read_pictures(files)]
    assert all(np.array_equal(each.pixels, GALAXY) for each in read if isinstance(each, Picture))
    return [(each.name, each.reason if isinstance(each, Rejected) else None) for each in read]


def test_pictures_come_in_their_order_and_bad_ones_stop_no_others(tmp_path):
    for name, content in [("b.png", png()), ("a.jpg", b"<svg/>"), ("c.fits", png())]:
        (tmp_path / name).write_bytes(content)
    archive = zipped(tmp_path / "z.jpg", [("d.png", png()), ("x/e.txt", b"text"), ("f", png())])  # by content
    read = said([tmp_path / "b.png", tmp_path / "a.jpg", tmp_path / "none.png", archive, str(tmp_path / "c.fits")])
    assert [name for name, _ in read] == ["b.png", "a.jpg", "none.png", "d.png", "e.txt", "f", "c.fits"]
    reasons = [reason and reason.split(".")[0] for _, reason in read]
    no_picture = "This file is not a picture in a supported format"
    assert reasons == [None, no_picture, "This file was not received", None, no_picture, None, None]


def test_each_is_read_when_its_turn_comes(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    files[0].write_bytes(png())
    read = read_pictures(files)
    assert next(read).name == "0.png"
    files[1].write_bytes(png())  # not there before
    assert next(read).name == "1.png"
    assert isinstance(next(read), Rejected)
    assert next(read, None) is None


def test_a_zip_is_read_without_a_file_leaving_it(tmp_path, monkeypatch):
    folder = tmp_path / "empty" / "deep"
    folder.mkdir(parents=True)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    members = [
        ("../../above.png", png()),
        ("/etc/absolute.png", png()),
        ("C:\\windows\\back.png", png()),
        ("folder/", b""),
        ("folder/same.png", png()),
        ("same.png", png()),
        ("__MACOSX/._same.png", b"notes"),
        (".DS_Store", b"notes"),
        (link, b"/etc/passwd"),
        ("inner.zip", zipped(tmp_path / "inner.zip", [("a.png", png())]).read_bytes()),
        ("evil\n\x1b[31m<img src=x>.png", png()),
        ("empty.png", b""),
    ]
    archive = zipped(tmp_path / "z.zip", members)
    before = {*tmp_path.rglob("*")}
    monkeypatch.chdir(folder)
    read = said([archive])
    assert [name for name, _ in read] == [
        "above.png", "absolute.png", "back.png", "same.png", "same.png", "link.png", "inner.zip", "evil[31m<img src=x>.png",
        "empty.png",
    ]  # fmt: skip
    refused = {name: reason.split(".")[0] for name, reason in read if reason}
    assert refused == {
        "link.png": "This file is not a picture in a supported format",
        "inner.zip": "This is a zip file within a zip file, which is not opened",
        "empty.png": "This file is empty",
    }
    assert {*tmp_path.rglob("*")} == before
    assert not Path("/etc/absolute.png").exists()


def test_members_that_cannot_be_read_are_refused_alone(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, method in [("a", 0), ("secret", 0), ("bz2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA), ("b", 0)]:
            archive.writestr(f"{name}.png", png(), method)
    content = bytearray(path.read_bytes())
    for place in (content.index(b"secret.png") - 30 + 6, content.rindex(b"secret.png") - 46 + 8):
        content[place] |= 1  # the flag of encryption, in both headers
    content[content.index(b"b.png") + 100] ^= 255  # its pixels
    path.write_bytes(content)
    read = dict(said([path]))
    assert read["a.png"] is None
    assert "password" in read["secret.png"]
    assert "unusual" in read["bz2.png"]
    assert "unusual" in read["lzma.png"]
    assert "in the zip file is damaged" in read["b.png"]


def test_bombs_cost_little(tmp_path):
    big = bytes(21_000_000)
    one = zipped(tmp_path / "one.zip", [("bomb.png", big), ("a.png", png())])
    assert [(name, bool(reason)) for name, reason in said([one])] == [("bomb.png", True), ("a.png", False)]
    many = zipped(tmp_path / "many.zip", [(f"{i}.png", big) for i in range(14)])
    tracemalloc.start()  # not the process's largest memory, which is that of all tests before
    read = said([many, one])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [name for name, _ in read] == [*(f"{i}.png" for i in range(9)), "many.zip", "bomb.png", "a.png"]
    assert "more than 200 MB in total" in read[9][1]
    assert peak < 100e6  # of 294 MB


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = zipped(tmp_path / "z.zip", [("bomb.png", bytes(30_000_000)), ("a.png", png())])
    content = bytearray(path.read_bytes())
    for place in (content.index(b"bomb.png") - 30 + 22, content.rindex(b"bomb.png") - 46 + 24):
        content[place : place + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    assert [(name, bool(reason)) for name, reason in said([path])] == [("bomb.png", True), ("a.png", False)]


def test_a_zip_of_very_many_files_is_refused_before_it_is_opened(tmp_path):
    path = zipped(tmp_path / "z.zip", [(f"{i}", b"") for i in range(2100)])
    assert said([path]) == [("z.zip", "This zip file holds more than 2000 files. Please divide it.")]
    # Python goes by the list's length, whatever number of files the end of the zip gives.
    content = bytearray(path.read_bytes())
    content[-14:-10] = struct.pack("<HH", 1, 1)
    path.write_bytes(content)
    assert len(zipfile.ZipFile(path).infolist()) == 2100
    assert said([path]) == [("z.zip", "This zip file holds more than 2000 files. Please divide it.")]


def test_zips_that_are_none_are_refused(tmp_path):
    whole = zipped(tmp_path / "z.zip", [("a.png", png())]).read_bytes()
    for content, reason in [
        (whole[:-30], "damaged"),
        (b"PK\x03\x04", "damaged"),
        (b"PK\x05\x06" + bytes(18), "no picture in this zip"),
        (
            zipped(tmp_path / "y.zip", [("folder/", b""), ("__MACOSX/._a.png", b"")]).read_bytes(),
            "no picture in this zip",
        ),
    ]:
        (tmp_path / "z.zip").write_bytes(content)
        [(name, refused)] = said([tmp_path / "z.zip"])
        assert name == "z.zip"
        assert reason in refused
    with open(tmp_path / "z.zip", "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(100_000_001)
    assert said([tmp_path / "z.zip"]) == [("z.zip", "This zip file is larger than 100 MB. Please divide it.")]


def test_damaged_zips_give_pictures_or_refusals_only(tmp_path):
    whole = zipped(tmp_path / "z.zip", [(f"{i}.png", png()) for i in range(3)]).read_bytes()
    generator, pictures, refused = np.random.default_rng(6), 0, 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 6)):
            content[generator.integers(len(content)) if generator.random() < 0.5 else -generator.integers(1, 250)] = (
                generator.integers(256)
            )
        (tmp_path / "z.zip").write_bytes(
            bytes(content[: generator.integers(1, len(content))] if generator.random() < 0.1 else content)
        )
        for each in read_pictures([tmp_path / "z.zip"]):
            pictures += isinstance(each, Picture)
            refused += isinstance(each, Rejected)
    assert pictures > 100
    assert refused > 100


def test_so_many_pictures_are_read_and_for_so_long(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    endless = itertools.repeat(tmp_path / "a.png")
    monkeypatch.setattr(uploads, "MAX_PICTURES", 7)
    read = said(endless)
    assert [name for name, _ in read] == ["a.png"] * 7 + [""]
    assert read[-1][1].startswith("Only the first 7 pictures")
    assert said([tmp_path / "a.png"] * 7) == [("a.png", None)] * 7
    monkeypatch.setattr(uploads, "MAX_SECONDS", 0)
    read = said(endless)
    assert [name for name, _ in read] == ["a.png", ""]
    assert read[-1][1].startswith("Reading took longer than 0 seconds")


def test_a_table_of_places_is_read_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(LegacySurveys, "server", "http://127.0.0.1:1")
    (tmp_path / "g.CSV").write_text(
        "\ufeffID_STR, RA ,Dec,url\n"
        "../m51,202.47,47.195,http://10.0.0.1/\n"
        ",here,47.195\n"
        "\n"
        '"a\nb",13:29:52.7,95\n'
        "=1+1,5\n",
        encoding="utf-8",
    )
    no_network = "The Legacy Surveys cannot be reached at the moment"
    read = [(name, reason.split(".")[0].replace(" Please", "")) for name, reason in said([tmp_path / "g.CSV"])]
    assert read == [
        ("m51", no_network),
        ("row 3", "Row 3, column ra: The right ascension cannot be read"),
        ("ab", "Row 5, column dec: The declination must be from -90 to 90 degrees"),
        ("=1+1", "Row 6, column dec: The declination cannot be read"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe\0", "cannot be read"),
        (b"ra,dec\n\0,5\n", "Row 2, column ra: The right ascension cannot be read"),
        (b'ra,dec\n"5,5\n', "cannot be read"),
        (b"name,url\na,http://169.254.169.254/\n", "addresses of pictures, which are not fetched"),
        (b"name,x\na,5\n", "no columns ra and dec"),
        (b"ra;dec\n5;5\n", "no columns ra and dec"),
        (b"ra,dec\n,\n\n", "no galaxy in this table"),
        (b"ra,dec\n" + b"9" * 200_000 + b",5\n", "cannot be read"),
        (b"ra,dec\n" + bytes(1_000_000), "larger than 1 MB"),
        (png(), "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content, reason):
    (tmp_path / "g.csv").write_bytes(content)
    [(_, refused)] = said([tmp_path / "g.csv"])
    assert reason in refused


def test_of_a_long_table_the_first_rows_are_read(tmp_path, monkeypatch):
    (tmp_path / "g.csv").write_text("ra,dec\n" + "here,there\n" * 51)
    read = said([tmp_path / "g.csv"])
    assert [name for name, _ in read] == [f"row {i}" for i in range(2, 52)] + ["g.csv"]
    assert read[-1][1].startswith("Only the first 50 rows")


def test_no_file_stays_open(tmp_path):
    path = zipped(tmp_path / "z.zip", [("a.png", png()), ("b.png", png())])
    before = len(os.listdir("/proc/self/fd"))
    read = read_pictures([path])
    next(read)
    read.close()
    said([path])
    assert len(os.listdir("/proc/self/fd")) == before
