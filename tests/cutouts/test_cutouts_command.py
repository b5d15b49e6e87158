"""`hf-galaxy cutouts` against survey servers: what it writes, says and asks for, and that it resumes after whatever stopped it."""

import json
import os
import re
import signal
import time

import numpy as np
import pandas as pd
import pytest

from hf_galaxy.commands.cutouts import command
from hf_galaxy.cutouts import fetching, polite
from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.files import only_writer_of
from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.importing.raw import raw_galaxies
from hf_galaxy.importing.reading import Reading
from tests.cutouts.survey_server import jpeg_at
from tests.forks import SERVER

FAST = ("--survey", "legacy-dr10", "--fov-arcsec", "60", "--size", "32", "--per-second", "1000")
PLACES = {"well": 5.0, "also": 6.0, "=dark": 17.0, "broken": 12.0}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(polite, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(polite, "LONGEST_WAIT", 0.002)
    monkeypatch.setenv("TQDM_DISABLE", "1")


def catalogue(path, places, **columns):
    table = pd.DataFrame({"name": list(places), "ra": np.arange(len(places)) + 10.5, "dec": list(places.values())})
    table.assign(**columns).to_csv(path, index=False)
    return path


@pytest.fixture
def table(tmp_path):
    return catalogue(tmp_path / "t.csv", PLACES, kind=["spiral", "smooth", "smooth", "spiral"])


def cut(*words, fails=None):
    if fails is None:
        command([*map(str, words)])
    else:
        with pytest.raises(SystemExit) as ended:
            command([*map(str, words)])
        assert re.search(fails, str(ended.value.code)), ended.value.code
        assert "\n" not in str(ended.value.code)


def read(path):
    return pd.read_csv(path, dtype={"id_str": str})


def test_pictures_and_tables(server, table, tmp_path, capsys):
    out = tmp_path / "out"
    cut(table, *FAST, "--out", out)
    done = read(out / "cutouts.csv")
    assert list(done) == ["id_str", "image", "ra", "dec", "fov_arcsec", "missing", "name", "kind"]
    assert done["id_str"].tolist() == ["well", "also"]
    assert done["kind"].tolist() == ["spiral", "smooth"]
    for _, row in done.iterrows():
        assert (out / "images" / row["image"]).read_bytes() == jpeg_at(row["ra"], row["dec"], 32)
    failed = read(out / "failed.csv")
    assert list(failed) == ["id_str", "ra", "dec", "fov_arcsec", "reason"]
    assert failed[["id_str", "ra", "dec"]].to_numpy().tolist() == [["'=dark", 12.5, 17.0], ["broken", 13.5, 12.0]]
    assert "outside of its footprint" in failed["reason"][0]
    assert "status 500" in failed["reason"][1]
    assert sorted(os.listdir(out)) == [".journal", "cutouts.csv", "failed.csv", "images", "request.json"]
    assert sorted(os.listdir(out / "images")) == ["also.jpg", "well.jpg"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("cutouts.csv: 2 of 4 galaxies have a picture")
    assert printed[1].startswith(f"{out / 'failed.csv'}: why the others have none; the same command tries them again")


def test_the_same_command_asks_only_for_what_failed(server, table, tmp_path):
    out = tmp_path / "out"
    cut(table, *FAST, "--out", out, "--retries", 0)
    assert len(server.asked) == 4
    before = (out / "images/well.jpg").stat().st_mtime_ns
    cut(table, *FAST, "--out", out, "--retries", 0)
    assert sorted(server.places()[4:]) == [("12.5000000", "17.0000000"), ("13.5000000", "12.0000000")]
    assert (out / "images/well.jpg").stat().st_mtime_ns == before
    server.trouble.clear()
    cut(table, *FAST, "--out", out, "--retries", 0)
    assert len(read(out / "cutouts.csv")) == 4
    assert not (out / "failed.csv").exists()
    number = len(server.asked)
    cut(table, *FAST, "--out", out)
    assert len(server.asked) == number


def test_a_catalogue_that_grew_or_was_corrected_costs_only_what_is_new(server, tmp_path):
    out = tmp_path / "out"
    cut(catalogue(tmp_path / "t.csv", {"a": 1.0, "b": 2.0}), *FAST, "--out", out)
    cut(catalogue(tmp_path / "t.csv", {"a": 1.0, "b": 3.0, "c": 4.0}), *FAST, "--out", out)
    assert [dec for _, dec in server.places()[2:]] in (["3.0000000", "4.0000000"], ["4.0000000", "3.0000000"])
    assert (out / "images/b.jpg").read_bytes() == jpeg_at(11.5, 3.0, 32)
    assert read(out / "cutouts.csv")["dec"].tolist() == [1, 3, 4]
    (out / "images/a.jpg").unlink()
    cut(tmp_path / "t.csv", *FAST, "--out", out)
    assert len(server.asked) == 5
    assert (out / "images/a.jpg").exists()


def test_a_folder_holds_pictures_of_one_kind(server, table, tmp_path):
    out = tmp_path / "out"
    cut(table, *FAST, "--out", out)
    number = len(server.asked)
    cut(table, *FAST, "--out", out, "--size", 64, fails="holds cutouts with --size 32, not 64; choose another --out")
    cut(table, *FAST, "--out", out, "--bands", "g", "r", "z", fails="--bands as by default, not g r z")
    cut(table, *FAST, "--out", tmp_path, fails="exists already")
    with only_writer_of(out.resolve()):
        cut(table, *FAST, "--out", out, fails="another command writes it at this moment")
    assert len(server.asked) == number


def test_each_galaxy_has_a_field_of_its_own(server, tmp_path):
    table = catalogue(tmp_path / "t.csv", {"a": 1.0, "b": 2.0}, r90=[4.0, 10.0])
    cut(
        table, "--survey", "sdss", "--fov-column", "r90", "--fov-factor", "8", "--size", "64", "--out", tmp_path / "out"
    )
    assert {query["dec"]: query["scale"] for _, query, _ in server.asked} == {
        "1.0000000": "0.500000",
        "2.0000000": "1.250000",
    }
    assert read(tmp_path / "out/cutouts.csv")["fov_arcsec"].tolist() == [32, 80]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fov-arcsec", "60", "--survey", "sdss", "--size", "9000"), "sides from 64 to 2048 pixels"),
        (("--fov-arcsec", "60", "--survey", "nowhere"), "there is no such survey"),
        (
            ("--fov-arcsec", "60", "--survey", "panstarrs", "--format", "fits", "--size", "9"),
            "keep the pixels of the survey",
        ),
        (("--survey", "sdss"), "--fov-column"),
        (("--fov-arcsec", "60", "--survey", "sdss", "--per-second", "0"), "--per-second must be above 0"),
        (("--fov-arcsec", "60", "--survey", "sdss", "--parallel", "0"), "--parallel must be from 1"),
        (("--fov-arcsec", "60", "--survey", "sdss", "--contact", "caf\u00e9"), "--contact must be an e-mail address"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_request(server, table, tmp_path, words, said):
    cut(table, *words, "--out", tmp_path / "out", fails=said)
    assert server.asked == []
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_refused_before_the_first_request(server, tmp_path):
    cut(
        catalogue(tmp_path / "t.csv", {"a": 1.0, "b": 91.0}),
        *FAST,
        "--out",
        tmp_path / "out",
        fails="row 2, column dec",
    )
    assert server.asked == []


def test_requests_go_out_in_parallel(server, tmp_path):
    server.seconds = 0.05
    table = catalogue(tmp_path / "t.csv", {f"g{i}": i / 10 for i in range(8)})
    cut(table, *FAST, "--parallel", 4, "--out", tmp_path / "out")
    assert 1 < server.most <= 4


def test_a_server_that_is_not_there_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_IN_A_ROW", 3)
    table = catalogue(tmp_path / "t.csv", {"a": 1.0} | {f"g{i:03}": 12.0 for i in range(200)})
    out = tmp_path / "out"
    said = "3 galaxies in a row have no picture: the server answers with status 500; when the server is there again"
    cut(table, *FAST, "--retries", 0, "--parallel", 1, "--out", out, fails=said)
    assert len(server.asked) < 10
    assert read(out / "cutouts.csv")["id_str"].tolist() == ["a"]
    assert 3 <= len(read(out / "failed.csv")) < 10


def test_a_full_disk_is_said_in_one_line(server, table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr("hf_galaxy.files.fsync_file", full)
    out = tmp_path / "out"
    cut(table, *FAST, "--out", out, fails="cannot be written: No space left on device")
    assert not list((out / "images").iterdir())


def _cut_slowly(url, words):
    """In a process of its own, which is killed."""
    from hf_galaxy.cutouts import services

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in the background
    os.environ["TQDM_DISABLE"] = "1"
    services.LegacySurveys.server = url
    command(words)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_whatever_stops_it_the_same_command_completes(server, tmp_path, number):
    server.seconds = 0.2  # so that all of them would take seconds
    places = {f"g{i:02}": i / 10 for i in range(40)}
    words = [str(catalogue(tmp_path / "t.csv", places)), *FAST, "--parallel", "2", "--out", str(tmp_path / "out")]
    process = SERVER.Process(target=_cut_slowly, args=(server.url, words))
    process.start()
    images = tmp_path / "out/images"
    while not images.exists() or len(list(images.glob("g*.jpg"))) < 5:
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == -number
    done = {path.stem: path for path in images.glob("*.jpg")}
    assert 5 <= len(done) < 40
    for name, path in done.items():
        assert path.read_bytes() == jpeg_at(10.5 + int(name[1:]), places[name], 32)
    with open(tmp_path / "out/.journal") as journal:
        recorded = {json.loads(line)["id_str"] for line in journal if line.endswith("\n")}
    with open(tmp_path / "out/.journal", "a") as journal:
        journal.write('{"id_str": "g39", "mis')  # as of a writer that was killed while it wrote
    asked, server.seconds = len(server.asked), 0
    cut(*words)
    assert len(server.asked) - asked == 40 - len(recorded)
    assert sorted(os.listdir(images)) == [f"{name}.jpg" for name in places]
    assert len(read(tmp_path / "out/cutouts.csv")) == 40


def test_the_table_and_the_pictures_are_a_dataset(server, tmp_path):
    out = tmp_path / "out"
    cut(catalogue(tmp_path / "t.csv", {"../a": 1.0, "b c": 2.0}, kind=["x", "y"]), *FAST, "--out", out)
    raw = raw_galaxies(str(out / "cutouts.csv"), Reading(images=(out / "images",)))
    assert len(raw.source) == 2
    columns = ColumnMap(classes={"kind": {"column": "kind", "names": {"x": "x", "y": "y"}}})
    table = CatalogueTable.read(out / "cutouts.csv", columns.needed(None))
    assert table["id_str"].tolist() == ["../a", "b c"]
    pictures = Pictures([out / "images"])
    for row, file in enumerate(table.image_files(columns)):
        assert pictures.read(file) == jpeg_at(10.5 + row, 1.0 + row, 32)
