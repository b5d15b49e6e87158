"""The page of a downstream benchmark holds its results, whichever start is best, and the folder is a dataset."""

import json

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from hf_galaxy.downstream.findings import key_findings
from hf_galaxy.downstream.page import PAGE_MARK, benchmark_page, write_results
from hf_galaxy.downstream.results import results_of
from hf_galaxy.errors import BadInput
from tests.downstream.cells import GRIDS, SHARES, STARTS, about, cells, write

FEW = {"tasks": ("gz1", "rings", "ceers"), "starts": ("random", "imagenet", "gz2_votes", "ceers")}


def page_of(measured, description):
    return benchmark_page(json.loads(json.dumps(results_of(measured, description), allow_nan=False)), description, {})


def rows_of(page, heading):
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = write(tmp_path_factory.mktemp("benchmark"), cells(**FEW, noise=0.03), about(**FEW))
    write_results(out)
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_folder_is_a_dataset_with_a_card(folder):
    table = load_dataset(str(folder), split="train")
    measured = cells(**FEW)
    assert len(table) == sum(len(cell["figures"]) for cell in measured)
    assert set(table.features) >= {"task", "start", "mode", "share", "seed", "measure", "loss", "replicates"}
    card = DatasetCard.load(folder / "README.md")
    assert card.data.pretty_name == "Downstream tasks: made up"
    pictures = {file.stem for file in folder.glob("*.png")}
    assert pictures == {file.stem for file in folder.glob("*.csv")}
    assert all(f"({name}.png)" in card.text and f"({name}.csv)" in card.text for name in pictures)
    assert not [*folder.glob(".*.partial")]


def test_writing_again_changes_nothing_and_clears_what_is_of_old(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    (folder / "labels-old.png").write_text("of an earlier page")
    write_results(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_page_that_somebody_wrote_is_left_alone(tmp_path):
    out = write(tmp_path, cells(tasks=("gz1",), starts=("imagenet",), seeds=(1,)), about())
    (out / "README.md").write_text("mine")
    with pytest.raises(BadInput, match=r"README\.md was not made by this command"):
        write_results(out)
    assert [file.name for file in out.iterdir() if file.suffix in (".png", ".parquet")] == []
    (out / "README.md").write_text(PAGE_MARK)
    write_results(out)


def test_the_best_and_the_losing_starts_are_told_beside_the_paper(results):
    text = " ".join(key_findings(results, about(**FEW)))
    for mode, words in (("linear", "a linear probe"), ("full", "full finetuning")):
        averages = {
            row["start"]: row
            for row in results["averages"]
            if (row["mode"], row["share"], row["family"]) == (mode, 1.0, "headline")
        }
        best = averages["gz2_votes"]
        reduction = f"{100 * best['value']:.1f} % [{100 * best['low']:.1f} %, {100 * best['high']:.1f} %] on average over 3 tasks"
        assert f"With all labels and {words}, the best galaxy start, {STARTS['gz2_votes'][0]}, cuts" in text
        assert reduction in text
        losing = text.split(f"With all labels and {words}, more error than ImageNet on average, at 90 %: ")[1]
        assert losing.startswith(f"Random weights {100 * averages['random']['value']:.1f} %")
    assert "31 % on average over its five tasks" in text
    assert "Each start is one set of weights, from one pretraining" in text
    assert "a linear probe, worse than a constant prediction on ceers: Random weights, ImageNet, ImageNet, then" in text


def test_starts_with_several_pretrainings_are_told_from_those_with_one():
    description = about(tasks=("gz1",), starts=("imagenet", "gz2_votes"))
    description["starts"]["gz2_votes"]["weights"] = ["a", "b", "c"]
    measured = cells(tasks=("gz1",), starts=("imagenet", "gz2_votes"))
    for cell in measured:
        cell["pretraining"] = cell["seed"] if cell["start"] == "gz2_votes" else 1
    text = key_findings(results_of(measured, description), description)[0]
    assert f"with several pretrainings: {STARTS['gz2_votes'][0]} (3).**" in text
    assert text.endswith("hold for these weights alone: ImageNet.")


def test_a_galaxy_start_that_loses_is_told_as_plainly():
    description = about(tasks=("gz1", "rings"), starts=("imagenet", "ceers"))
    page = page_of(cells(tasks=("gz1", "rings"), starts=("imagenet", "ceers"), noise=0.005), description)
    assert f"the best galaxy start, {STARTS['ceers'][0]}, does NOT cut the error of ImageNet, by -" in page
    assert "(more error at 90 %)" in page
    assert "0 have less error at 90 %, 8 more" in page
    assert "in 0 of 2 cases" in page


def test_tables_hold_the_results(folder, results):
    page = (folder / "README.md").read_text()
    titles = {STARTS[name][0]: name for name in FEW["starts"]}
    rows = rows_of(page, "With a linear probe")
    header = rows[0]
    assert [titles.get(each) for each in header[1:-1]] == list(FEW["starts"])
    losses = {
        (row["task"], row["start"]): row
        for row in results["means"]
        if row["main"] and (row["mode"], row["share"]) == ("linear", 1)
    }
    for row in rows[2:5]:
        for title, cell in zip(header[1:-1], row[1:-1], strict=True):
            mean = losses.get((row[0].split()[0], titles[title]))
            assert cell.strip("*") == (
                "" if mean is None else f"{mean['value']:#.3g} [{mean['low']:#.3g}, {mean['high']:#.3g}]"
            )
            assert not mean or cell.startswith("*") == (mean["constant"]["error"] != "less")
    assert rows[4][0] == "ceers (excess)"
    assert rows[4][4] == "", "not measured on its pretraining set"
    reductions = rows[7:]
    assert len(reductions) == len(SHARES) * 3
    for row in reductions:
        for cell, task in zip(row[3:], FEW["tasks"], strict=True):
            mine = [
                each for each in results["reductions"] if each["main"]
                and (each["task"], each["start"], each["mode"]) == (task, titles[row[1]], "linear")
                and each["share"] == (1 if row[0] == "all" else 1 / int(row[0][2:]))
            ]  # fmt: skip
            assert cell.strip("*").split(" %")[0] == (f"{100 * mine[0]['value']:.1f}" if mine else "")
            assert not mine or cell.startswith("**") == (mine[0]["error"] in ("less", "more"))
    labels = rows_of(page, "Labels that a start needs")[2:]
    assert len(labels) == len(results["labels"]) == 2 * 8
    for row, own in zip(labels, results["labels"], strict=True):
        value = own["galaxies"]["value"]
        assert row[4].startswith(f"over {own['most']:,}" if value == "more" else f"{value:,}")
    assert len(rows_of(page, "Linear probes against full finetuning")) == 2 + len(SHARES) * 4
    choices = rows_of(page, "How hyper-parameters were chosen")[2:]
    assert [row[0] for row in choices] == ["linear"] * 4 + ["full"] * 4
    assert choices[0][4].endswith("highest of 36")
    assert ", ".join(map(str, GRIDS["linear"])) in page
    assert "as the start was pretrained with that dataset: ceers on ceers." in page
    assert "Not yet measured" not in page


def test_an_unfinished_benchmark_says_what_it_lacks():
    measured = [cell for cell in cells(tasks=("gz1",), seeds=(1,), modes=("linear",)) if cell["start"] != "mock"]
    page = page_of(measured, about(tasks=("gz1", "rings")))
    assert "Not yet measured: random, linear: 4 of 24 cells are there;" in page
    assert "mock, full: 0 of 24 cells are there" in page
    assert "(no interval)" in page
    assert "Linear probes against full finetuning" not in page
    only = page_of([cell for cell in measured if cell["start"] == "imagenet"], about(tasks=("gz1",)))
    assert "best galaxy start" not in only
    assert "Labels that a start needs" not in only
