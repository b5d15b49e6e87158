"""A study whose records were packed, and its folders removed, gives every page to the byte, and nothing is run again."""

import runpy
import shutil
import sys

import pytest

from hf_galaxy.downstream.benchmark import BenchmarkCell, Start
from hf_galaxy.downstream.page import write_results
from hf_galaxy.downstream.tasks import Task
from hf_galaxy.files import write_json
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.scaling.points import records_in
from hf_galaxy.sweeps.grid import cells_of
from tests.conftest import ROOT
from tests.downstream.cells import about, cells
from tests.scaling.records import classed_records, voted_records

BACKBONES = {"resnet10t": 4_925_053, "test_resnet": 373_173}


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process; returns its output, or why it refuses."""

    def script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="__main__")
        except SystemExit as refused:
            return str(refused.code)
        return capsys.readouterr().out

    return script


def save(records, folder):
    for name, record in records.items():
        (folder / name).mkdir(parents=True)
        record.save(folder / name)
    return records


def files_of(folder):
    """What a page is made of."""
    return {
        file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != "records.parquet"
    }


@pytest.mark.parametrize("made", [pytest.param(classed_records, marks=pytest.mark.nightly), voted_records])
def test_the_page_of_a_study_is_the_same_to_the_byte(made, script, tmp_path):
    sizes = {"sizes": (300, 1_000, 3_000, 10_000), "backbones": BACKBONES, "replicates": 20}
    records = save(
        made(**sizes) if made is classed_records else made(("round", "bar"), **sizes), tmp_path / "study/runs"
    )
    command = ("fit_scaling", "--runs", tmp_path / "study", "--out", tmp_path / "page")
    script(*command)
    before = files_of(tmp_path / "page")
    assert {"README.md", "scaling.json", "points.parquet"} < before.keys()
    said = script("pack_records", "--study", tmp_path / "study")
    assert f"{len(records)} records" in said
    shutil.rmtree(tmp_path / "study/runs")
    assert {file.name for file in (tmp_path / "study").iterdir()} == {"records.parquet"}
    script(*command)
    assert files_of(tmp_path / "page") == before
    # The file by itself holds the same runs.
    for source in (tmp_path / "study", tmp_path / "study/records.parquet"):
        assert records_in(source) == {f"runs/{name}": record for name, record in records.items()}


def test_runs_are_added_to_a_study_whose_records_were_packed(script, tmp_path):
    study = tmp_path / "study"
    records = classed_records(sizes=(300, 1_000, 3_000, 10_000), backbones=BACKBONES, replicates=20)
    first, *others = records
    save({first: records[first]}, study / "runs")
    script("pack_records", "--study", study)
    save({name: records[name] for name in others}, study / "runs")
    unfinished = RunRecord("", {"seed": 1})
    save({"begun": unfinished}, study / "runs")
    records[first].training["seconds"] = 5.0
    records[first].save(study / "runs" / first)  # changed: the folder counts
    assert records_in(study) == {f"runs/{name}": record for name, record in records.items()}
    assert "and 0 that it held" in script("pack_records", "--study", study)
    shutil.rmtree(study / "runs")
    assert records_in(study) == {f"runs/{name}": record for name, record in records.items()}
    assert "has no finished run or cell that is not yet in records.parquet" in script("pack_records", "--study", study)


def test_what_a_study_shows_of_its_runs_goes_into_the_file(script, tmp_path):
    few = {"sizes": (300, 1_000, 3_000), "backbones": BACKBONES, "seeds": (1, 2), "replicates": 8}
    save(classed_records(**few), tmp_path / "study/runs")
    script("pack_records", "--study", tmp_path / "study")
    shutil.rmtree(tmp_path / "study/runs")
    script("fit_scaling", "--runs", tmp_path / "study", "--out", tmp_path / "page", "--title", "Made up", "--cards")
    for record in records_in(tmp_path / "study").values():
        assert record.scaling["title"] == "Made up"
        assert {law["backbone"] for law in record.scaling["laws"]} == {record.model["backbone"]}


def test_a_sweep_skips_what_is_recorded(script, tmp_path):
    (tmp_path / "train.py").touch()
    out = tmp_path / "study/runs"
    done, to_do = cells_of(["seed=1,2"], [str(tmp_path / "train.py")], ["python"], out)
    record = RunRecord("", {"seed": 1}, training={"seconds": 1.0}, finished=True)
    save({done.name: record}, out)
    command = ("sweep", "--out", out, "--vary", "seed=1,2", "--dry-run", "--", tmp_path / "train.py")
    before = script(*command)
    script("pack_records", "--study", tmp_path / "study")
    shutil.rmtree(out)
    assert done.record() == record
    assert to_do.record() is None
    assert script(*command) == before
    assert "2 cells: 1 done, 1 to do" in before
    save({done.name: RunRecord("", {"seed": 1})}, out)  # begun again by hand
    assert done.record() == record


def test_the_page_of_a_benchmark_is_the_same_and_no_cell_is_measured_again(script, tmp_path):
    few = {"tasks": ("gz1", "rings"), "starts": ("imagenet", "gz2_votes"), "shares": (0.25, 1.0)}
    out = tmp_path / "study"
    measured = [(cell_of(figures, out), figures) for figures in cells(**few)]
    for cell, figures in measured:
        write_json(cell.file, figures)
    write_json(out / "benchmark.json", about(**few))
    write_results(out)
    before = files_of(out)
    script("pack_records", "--study", out)
    shutil.rmtree(out / "cells")
    for name in before.keys() - {"benchmark.json"}:
        (out / name).unlink()
    write_results(out)
    assert files_of(out) == before
    assert all(cell.measured and cell.record() == figures for cell, figures in measured)
    other = cell_of(measured[0][1] | {"seed": 9}, out)
    assert not other.measured
    assert other.record() is None


def cell_of(figures, out):
    task = Task(figures["task"], "", "data", {}, figures["measure"])
    return BenchmarkCell(task, Start(figures["start"], None), figures["mode"], figures["share"], figures["seed"], out)


def test_a_broken_record_is_named(script, tmp_path):
    (tmp_path / "study/cells").mkdir(parents=True)
    (tmp_path / "study/cells/a.json").write_text("{")
    line = script("pack_records", "--study", tmp_path / "study")
    assert line.startswith("error: ")
    assert "cells/a.json: cannot be read as JSON" in line
    assert "has no finished run or cell" in script("pack_records", "--study", tmp_path / "nowhere")
