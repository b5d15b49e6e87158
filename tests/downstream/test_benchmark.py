"""Cells of the downstream benchmark are paired, agree with other libraries, and are measured once."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import runpy
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from hf_galaxy.commands.benchmark import Downstream, starts_of
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.splits import in_fold
from hf_galaxy.data.views import eval_view
from hf_galaxy.downstream import benchmark as b
from hf_galaxy.downstream.measure import CellMeasurer, losses_of, search
from hf_galaxy.downstream.page import write_results
from hf_galaxy.downstream.tasks import Task
from hf_galaxy.downstream.workers import Workers
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.start import load_model, resolve_start
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.sweeps.scheduler import CellStatus, resources_for_slot, run_grid
from hf_galaxy.training import settings as settings_module
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.sources import open_sources
from hf_galaxy.training.task import model_and_baseline
from tests.conftest import ROOT
from tests.forks import run_file
from tests.training.runs import SERVER, run
from tests.training.second_device import second_device


@pytest.fixture(scope="module")
def pretrained(mock_dataset, tmp_path_factory):
    """A run that was trained on the votes of half of the mock galaxies, in a dataset of another name."""
    folder = tmp_path_factory.mktemp("starts")
    opened = open_dataset(str(mock_dataset))
    train = [name for name in opened["train"].select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()]
    (folder / "other").symlink_to(mock_dataset)
    every = [n for rows in opened.values() for n in rows.with_format("arrow")[:]["id_str"].to_pylist()]
    (folder / "leave.csv").write_text(
        "id_str\n" + "\n".join(name for name in every if name not in train[:40] and name not in validating(opened))
    )
    run(
        folder / "votes", dataset=(str(folder / "other"),), backbone="test_resnet", image_size=32, epochs=2, batch_size=16,
        learning_rate=1e-2, leave_out=folder / "leave.csv",
    )  # fmt: skip
    return folder / "votes"


def validating(opened):
    return opened["validation"].with_format("arrow")[:]["id_str"].to_pylist()


def some_benchmark(mock_dataset, out, starts, **changes):
    tasks = {
        "kind": Task(
            "kind", "Kinds", str(mock_dataset), {"task": "classes", "label": "mock_class"}, "error", folds=True
        ),
        "votes": Task(
            "votes", "Votes", str(mock_dataset), {"task": "votes", "min_votes": 1, "tree": ("gz2",)}, "excess"
        ),
    }
    of = {name: b.Start(name, weights and str(weights)) for name, weights in starts.items()}
    options = dict(
        title="T",
        reference="random",
        backbone="test_resnet",
        image_size=32,
        shares=(1.0, 0.5),
        seeds=(1, 2),
        rates=(1e-3, 1e-2),
    )
    return b.Benchmark(tasks=tasks, starts=of, out=out, **options | changes)


@pytest.fixture(scope="module")
def measured(mock_dataset, pretrained, tmp_path_factory):
    """A small benchmark, and the measurements of its cells: linear probes of both tasks, and full finetuning of one start on one of them."""
    starts = {"random": None, "votes": pretrained}
    benchmark = some_benchmark(
        mock_dataset,
        tmp_path_factory.mktemp("bench"),
        starts,
        shares=(0.5,),
        images_per_root=20,
        penalties=(0.1, 0.01, 0.001),
    )
    (benchmark.out / ".cells").mkdir()
    bench, cells = CellMeasurer(benchmark), {}
    for cell in benchmark.cells():
        if cell.mode == "linear" or (cell.task.name, cell.start.name) == ("kind", "random"):
            assert bench.measure(cell)
            cells[cell.task.name, cell.mode, cell.seed, cell.start.name] = cell.record()
    return benchmark, cells


def test_two_starts_share_galaxies_folds_and_replicates(measured):
    benchmark, cells = measured
    assert len(cells) == 2 * 2 * 2 + 2, "linear probes of tasks, starts and seeds; and seeds"
    for (*task_mode_seed, start), cell in cells.items():
        if task_mode_seed[1] == "full":
            continue
        other = cells[(*task_mode_seed, "votes" if start == "random" else "random")]
        assert (cell["galaxies"], cell["test_galaxies"]) == (other["galaxies"], other["test_galaxies"])
        assert set(cell["figures"]) == set(other["figures"])
    assert (
        cells["kind", "linear", 1, "random"]["test_galaxies"] != cells["kind", "linear", 2, "random"]["test_galaxies"]
    )
    published = open_dataset(benchmark.tasks["votes"].dataset)["test"]
    assert {cells["votes", "linear", seed, "votes"]["test_galaxies"] for seed in (1, 2)} == {len(published)}, (
        "has no folds"
    )
    # The same constant prediction for all starts, and as many replicates.
    for task, measure in (("kind", "error"), ("kind", "nll"), ("votes", "excess"), ("votes", "rmse")):
        own = [cell["figures"][measure] for (name, _, seed, _), cell in cells.items() if (name, seed) == (task, 1)]
        assert len({figure["baseline"] for figure in own}) == 1
        assert {len(figure["replicates"]) for figure in own} == {200}


def test_votes_of_too_few_galaxies_for_the_oracle_need_another_measure(measured):
    benchmark, cells = measured
    task = dataclasses.replace(benchmark.tasks["votes"], measure="above_oracle")
    other = dataclasses.replace(benchmark, tasks={"votes": task})
    cell = next(cell for cell in other.cells() if cell.mode == "linear" and cell.start.name == "random")
    galaxies = cells["votes", "linear", 1, "random"]["test_galaxies"]
    with pytest.raises(BadInput, match=f"its {galaxies} test galaxies are too few for above_oracle; .* excess, rmse"):
        CellMeasurer(other).measure(cell)


def test_a_linear_probe_is_the_logistic_regression_of_the_galaxies_of_its_fold_and_share(measured):
    benchmark, cells = measured
    cell = b.BenchmarkCell(benchmark.tasks["kind"], benchmark.starts["votes"], "linear", 0.5, 2, benchmark.out)
    measured_cell, model = cells["kind", "linear", 2, "votes"], load_model(cell.start.weights).eval()
    opened = in_fold(open_dataset(cell.task.dataset), 2, "mock")
    settings = benchmark.settings(cell, out=Path("unused"))
    sources = open_sources(settings)
    assert set(names(sources.splits["train"][0])) < set(names(opened["train"]))
    assert names(sources.splits["test"][0]) == names(opened["test"])

    def features_and_labels(rows):
        batch = Galaxies(rows, model.config.framing, sources.target)[list(range(len(rows)))]
        with torch.no_grad():
            return model.features(eval_view(batch["pixels"], model.config.framing)).numpy(), batch["labels"].numpy()

    pool, _ = features_and_labels(opened["train"])
    x, y = features_and_labels(sources.splits["train"][0])
    x_test, y_test = features_and_labels(opened["test"])
    std = np.maximum(pool.std(0), 1e-3 * pool.std(0).mean())
    # The bias that the head comes with, and so the scale of the penalty, is drawn with the seed.
    fresh, _ = model_and_baseline(settings, sources, resolve_start(None, cell.start.weights, 32)[0])
    bias = fresh.head.bias.detach().expand(len(y), -1)
    scale = torch.nn.functional.cross_entropy(bias, torch.from_numpy(y)).item()
    theirs = LogisticRegression(C=1 / (len(y) * measured_cell["chosen"] * scale), tol=1e-6, max_iter=10_000)
    predicted = theirs.fit((x - pool.mean(0)) / std, y).predict((x_test - pool.mean(0)) / std)
    assert measured_cell["figures"]["error"]["model"] == pytest.approx(
        (predicted != y_test).mean(), abs=1.01 / len(y_test)
    )
    assert measured_cell["galaxies"] == len(y)


def test_linear_probes_run_on_a_device_of_their_own(mock_dataset, tmp_path, monkeypatch):
    """With features computed there, and with cached ones; and the losses agree with those on the CPU."""
    losses = {}
    for where in ("cpu", "elsewhere"):
        benchmark = some_benchmark(
            mock_dataset, tmp_path / where, {"random": None}, modes=("linear",), seeds=(1,), penalties=(1e-1, 1e-2)
        )
        with second_device() if where == "elsewhere" else contextlib.nullcontext("cpu") as device:
            monkeypatch.setattr(
                "hf_galaxy.downstream.measure.start_accelerator", lambda precision: Accelerator(cpu=True)
            )
            monkeypatch.setattr(Accelerator, "device", torch.device(device))
            monkeypatch.setattr("hf_galaxy.downstream.probe.STEPS", 8)  # of which each takes long on that device
            bench = CellMeasurer(benchmark)
            assert all(bench.measure(cell) for cell in benchmark.cells())
        losses[where] = [cell.record()["figures"][cell.task.measure]["model"] for cell in benchmark.cells()]
    assert losses["elsewhere"] == pytest.approx(losses["cpu"], rel=0.02)
    assert len(losses["cpu"]) == 4, "tasks and shares"


def measure_all(benchmark):
    bench = CellMeasurer(benchmark)
    for cell in benchmark.cells():
        bench.measure(cell)


def test_with_mixed_precision_whole_models_are_trained_but_not_probed(mock_dataset, tmp_path):
    """Both in one process, in which Accelerate allows one precision."""
    records = []
    for precision in ("bf16", None):
        options = dict(shares=(0.5,), seeds=(1,), rates=(1e-2,), images_per_root=20, precision=precision)
        benchmark = some_benchmark(mock_dataset, tmp_path / str(precision), {"random": None}, **options)
        benchmark = dataclasses.replace(benchmark, tasks={"kind": benchmark.tasks["kind"]})
        process = SERVER.Process(target=measure_all, args=(benchmark,))
        process.start()
        process.join()
        assert process.exitcode == 0
        records.append({cell.mode: cell.record() for cell in benchmark.cells()})
    mixed, plain = records
    assert mixed["full"]["environment"]["precision"] == "bf16"
    assert mixed["full"]["figures"] != plain["full"]["figures"]
    assert mixed["linear"]["environment"]["precision"] == "no"
    assert mixed["linear"]["figures"] == plain["linear"]["figures"]


def names(rows):
    return rows.with_format("arrow")[:]["id_str"].to_pylist()


def test_the_first_seed_chooses_the_learning_rate(measured):
    benchmark, cells = measured
    first, later = (cells["kind", "full", seed, "random"] for seed in (1, 2))
    assert list(first["grid"]) == [str(rate) for rate in benchmark.rates]
    assert first["grid"][str(first["chosen"])] == min(first["grid"].values())
    assert list(later["grid"]) == [str(first["chosen"])]
    assert not list((benchmark.out / ".cells").glob("*.runs")), "weights of finished cells are not kept"


@pytest.mark.parametrize(
    ("losses", "tried"),
    [
        ([4, 3, 2, 3, 1, 0], [2, 3, 1]),  # a valley: beyond its sides nothing is tried
        ([4, 3, 3, 2, 1, 2], [2, 3, 4, 5]),
        ([0, 1, 2, 3, 3, 3], [2, 3, 1, 0]),  # down to the edge
        ([6, 5, 4, 3, 2, 1], [2, 3, 4, 5]),
        ([9, 9, 9, 9, 9, 9], [2, 3, 1]),  # no better is not better
        ([1, 2], [0, 1]),
        ([2, 1], [0, 1]),
        ([1], [0]),
        ([1, 2, None, None], [1, 2, 0]),  # one that diverges is worse than any
        ([1, None, None, 0], [1, 2, 0]),
    ],
)
def test_the_search_of_a_rate_ends_between_two_that_are_worse(losses, tried):
    def loss_of(rate):
        if losses[rate] is None:
            raise FloatingPointError
        return losses[rate]

    searched = search(range(len(losses)), loss_of)
    assert list(searched) == tried
    assert searched == {rate: math.inf if losses[rate] is None else losses[rate] for rate in tried}


def test_a_search_in_which_all_diverge_says_so():
    def loss_of(rate):
        raise FloatingPointError(f"with {rate}")

    with pytest.raises(FloatingPointError, match="with 0"):
        search([0, 1, 2], loss_of)


def test_a_later_seed_waits_for_the_first(mock_dataset, tmp_path):
    benchmark = some_benchmark(mock_dataset, tmp_path, {"random": None}, modes=("full",), seeds=(1, 2))
    later = next(cell for cell in benchmark.cells() if cell.seed == 2)
    assert not CellMeasurer(benchmark).measure(later)
    assert not later.file.exists()


def test_a_start_is_not_measured_on_its_own_pretraining_set(mock_dataset, pretrained, tmp_path):
    """Nor on that of the run that it started from; and the same galaxies in a dataset of another name are refused."""
    own = tmp_path / "own"
    run(
        own,
        backbone=None,
        dataset=(str(mock_dataset),),
        start=str(pretrained),
        task="classes",
        label="mock_class",
        epochs=1,
        batch_size=32,
    )
    benchmark = some_benchmark(mock_dataset, tmp_path / "out", {"random": None, "own": own})
    assert [record.settings["task"] for record in benchmark.starts["own"].lineage] == ["classes", "votes"]
    assert {cell.start.name for cell in benchmark.cells()} == {"random"}
    assert benchmark.about({"random": True, "own": True})["starts"]["own"]["learnt_from"] == ["kind", "votes"]
    with pytest.raises(
        BadInput,
        match=f"start votes was pretrained with {40 + len(validating(open_dataset(str(mock_dataset))))} galaxies of task kind",
    ):
        b.check_unseen(some_benchmark(mock_dataset, tmp_path / "out", {"random": None, "votes": pretrained}))


@pytest.fixture(scope="module")
def again(pretrained, tmp_path_factory):
    """What stands for another pretraining by the same recipe: the run with other weights, and another seed in its record."""
    folder = tmp_path_factory.mktemp("again") / "votes"
    shutil.copytree(pretrained, folder)
    record = RunRecord.load(pretrained)
    record.settings["seed"] += 1
    del record.model["weights"]  # what says that they are those of the run
    record.save(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: 1.5 * value if value.is_floating_point() else value for name, value in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def test_seeds_take_the_pretrainings_of_a_start_in_turn(mock_dataset, pretrained, again, tmp_path):
    starts = {"random": None, "votes": pretrained}
    options = dict(shares=(0.5,), modes=("linear",), penalties=(0.1,), seeds=(1, 2, 3, 4))
    benchmark = some_benchmark(mock_dataset, tmp_path, starts, **options)
    several = dataclasses.replace(benchmark.starts["votes"], more=(str(again),))
    benchmark = dataclasses.replace(
        benchmark, starts=benchmark.starts | {"votes": several}, tasks={"votes": benchmark.tasks["votes"]}
    )
    b.begin(benchmark, {"random": True, "votes": True})
    bench = CellMeasurer(benchmark)
    assert all(bench.measure(cell) for cell in benchmark.cells())
    records = {(cell.start.name, cell.seed): cell.record() for cell in benchmark.cells()}
    assert [records["votes", seed]["pretraining"] for seed in (1, 2, 3, 4)] == [1, 2, 1, 2]
    assert [records["random", seed]["pretraining"] for seed in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert [benchmark.settings(cell, out=tmp_path).start for cell in benchmark.cells()][1::2] == [
        str(pretrained),
        str(again),
    ] * 2
    alone = some_benchmark(mock_dataset, tmp_path / "alone", {"random": None, "votes": again}, **options)
    (cell,) = (c for c in alone.cells() if (c.task.name, c.start.name, c.seed) == ("votes", "votes", 2))
    (alone.out / ".cells").mkdir(parents=True)
    assert CellMeasurer(alone).measure(cell)
    assert cell.record()["figures"] == records["votes", 2]["figures"] != records["votes", 1]["figures"]
    write_results(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["pretrainings"] == {"random": 4, "votes": 2}
    page = (tmp_path / "README.md").read_text()
    assert "several pretrainings: votes (2).**" in page
    assert f"`{pretrained}`, `{again}`" in page
    with pytest.raises(BadInput, match="another votes"):
        b.begin(
            dataclasses.replace(benchmark, starts={"votes": b.Start("votes", str(pretrained))}, reference="random"),
            {"votes": True},
        )


def test_pretrainings_of_a_start_are_by_one_recipe(pretrained, again, tmp_path):
    b.Start("votes", str(pretrained), more=(str(again),)).check()
    with pytest.raises(BadInput, match="the same weights twice"):
        b.Start("votes", str(pretrained), more=(str(pretrained),)).check()
    other = shutil.copytree(again, tmp_path / "other")
    record = RunRecord.load(other)
    record.settings["epochs"] = 3
    record.save(other)
    with pytest.raises(BadInput, match="its epochs is 3, not 2; give it another name"):
        b.Start("votes", str(pretrained), more=(str(other),)).check()
    with pytest.raises(BadInput, match="comes from 0 runs, not 1"):
        b.Start("votes", str(pretrained), more=("weights.pth",)).check()
    with pytest.raises(
        BadInput, match=rf"{pretrained} \(\d+\), so it would count the same pretraining twice; give one"
    ):
        b.Start("votes", str(pretrained), more=(str(shutil.copytree(pretrained, tmp_path / "copy")),)).check()


def test_a_control_is_no_galaxy_start(mock_dataset, again, tmp_path):
    control = shutil.copytree(again, tmp_path / "control")
    record = RunRecord.load(control)
    record.settings["shuffle_targets"] = True
    record.save(control)
    benchmark = some_benchmark(mock_dataset, tmp_path, {"random": None, "votes": again, "control": control})
    starts = benchmark.about({"random": True, "votes": True, "control": True})["starts"]
    assert {name: start["galaxies"] for name, start in starts.items()} == {
        "random": False,
        "votes": True,
        "control": False,
    }
    assert [name for name, start in starts.items() if start.get("control")] == ["control"]
    then_true = shutil.copytree(again, tmp_path / "then_true")
    record.settings |= {"shuffle_targets": False, "start": str(control)}
    record.save(then_true)
    assert b.is_control(b.Start("control", str(control)))
    assert not b.is_control(b.Start("then_true", str(then_true))), "its last pretraining is with targets of its own"


@pytest.mark.parametrize(
    ("starts", "seeds", "why"),
    [
        (
            ["votes={0}", "votes={1}"],
            (1,),
            "has 2 pretrainings, which seeds take in turn, but the last of --seeds is 1",
        ),
        (["votes={0}", "votes={1}", "random"], (1, 2), None),
        (["random", "random"], (1, 2), "or random, once"),
    ],
)
def test_pretrainings_that_intervals_cannot_contain_are_refused(starts, seeds, why, pretrained, again):
    options = Downstream(
        out=Path("out"),
        starts=tuple(each.format(pretrained, again) for each in starts),
        reference="votes",
        seeds=seeds,
        backbone="test_resnet",
    )
    if why is None:
        assert starts_of(options)["votes"].more == (str(again),)
        return
    with pytest.raises(BadInput, match=why):
        starts_of(options)


def test_a_start_whose_galaxies_are_gone_is_not_checked(mock_dataset, pretrained, tmp_path):
    record = RunRecord.load(pretrained)
    record.settings["dataset"] = [str(tmp_path / "gone")]
    moved = tmp_path / "moved"
    moved.mkdir()
    record.save(moved)
    assert b.check_unseen(some_benchmark(mock_dataset, tmp_path, {"random": None, "moved": moved})) == {
        "random": True,
        "moved": False,
    }


def test_a_benchmark_may_grow_but_not_change(mock_dataset, pretrained, tmp_path):
    checked = {"random": True, "votes": True}
    small = some_benchmark(mock_dataset, tmp_path, {"random": None}, seeds=(1,))
    b.begin(small, checked)
    b.begin(some_benchmark(mock_dataset, tmp_path, {"votes": pretrained}, seeds=(2,), reference="random"), checked)
    about = json.loads((tmp_path / "benchmark.json").read_text())
    assert about["seeds"] == [1, 2]
    assert list(about["starts"]) == ["random", "votes"]
    for change, named in (
        ({"image_size": 48}, "fixed"),
        ({"rates": (1e-4, 1e-2)}, "grids"),
        ({"reference": "votes"}, "reference"),
    ):
        with pytest.raises(BadInput, match=f"another {named}"):
            b.begin(dataclasses.replace(small, **change), checked)
    with pytest.raises(BadInput, match="another votes"):
        b.begin(some_benchmark(mock_dataset, tmp_path, {"votes": tmp_path}), checked)


def test_commands_that_extend_a_benchmark_at_the_same_time_lose_nothing(mock_dataset, tmp_path):
    seeds, barrier = range(1, 17), threading.Barrier(16)

    def extend(seed):
        benchmark = some_benchmark(mock_dataset, tmp_path, {"random": None}, seeds=(seed,))
        barrier.wait()
        b.begin(benchmark, {"random": True})

    with ThreadPoolExecutor(len(seeds)) as pool:
        list(pool.map(extend, seeds))
    assert sorted(json.loads((tmp_path / "benchmark.json").read_text())["seeds"]) == list(seeds)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_benchmark_of_before_is_extended(mock_dataset, tmp_path):
    """Its starts have fields that are not written any more."""
    first, second = (some_benchmark(mock_dataset, tmp_path, {"random": None}, seeds=(seed,)) for seed in (1, 2))
    b.begin(first, {"random": True})
    file = tmp_path / "benchmark.json"
    about = json.loads(file.read_text())
    about["starts"]["random"]["size_of"] = None
    file.write_text(json.dumps(about))
    b.begin(second, {"random": True})
    assert json.loads(file.read_text())["seeds"] == [1, 2]


def test_a_benchmark_from_before_there_was_a_choice_of_activations_goes_on_with_the_sigmoid(mock_dataset, tmp_path):
    benchmark = some_benchmark(mock_dataset, tmp_path, {"random": None})

    def with_activation(**options):
        tasks = {
            name: dataclasses.replace(task, options=task.options | options) for name, task in benchmark.tasks.items()
        }
        return dataclasses.replace(benchmark, tasks=tasks)

    old = with_activation(head_activation="sigmoid")
    b.begin(old, {"random": True})
    about = json.loads((tmp_path / "benchmark.json").read_text())
    kinds = {task["kind"] for task in about["tasks"].values()}
    assert "votes" in kinds
    assert not any("head_activation" in task for task in about["tasks"].values()), "as then"
    with pytest.raises(BadInput, match="is of a benchmark with another"):
        b.begin(with_activation(), {"random": True})
    b.begin(old, {"random": True})


def test_a_record_holds_the_settings_of_its_run(tmp_path):
    """Each with the type that the command line gives it."""
    settings = Settings(
        dataset=("a", "b"), weights=(1.0, 2.0), out=tmp_path / "out", leave_out=tmp_path / "leave.csv", branch_of=Path("trunk"),
        keep_at=(0.5, 1.0), zoom=(0.8, 1.0), class_weights=(1.0, 3.0), tree=("gz2",), values=("z",), start=str(tmp_path), subset=0.25,
    )  # fmt: skip
    record = RunRecord("", dataclasses.asdict(settings) | {"out": str(settings.out), "leave_out": str(settings.leave_out),
                                                           "branch_of": "trunk"})  # fmt: skip
    record.save(tmp_path)
    record = RunRecord.load(tmp_path)
    assert settings_module.settings_of(record) == settings
    del record.settings["shift"]  # of an earlier version without this option
    assert settings_module.settings_of(record) == settings


def test_losses_are_less_for_better_models():
    results = {
        "galaxies": 9, "loss": {"model": 0.5, "baseline": 0.7}, "accuracy": {"model": 0.9, "baseline": 0.6},
        "balanced_accuracy": {"model": 0.8, "baseline": 0.5}, "auc": {"model": None, "baseline": None},
        "average_precision": {"model": 0.7, "baseline": 0.1},
        "bootstrap": {name: {"model": [0.25, None]} for name in ("loss", "accuracy", "balanced_accuracy", "auc", "average_precision")},
    }  # fmt: skip
    losses = losses_of(results, "classes")
    assert losses["error"] == {"model": 0.1, "baseline": 0.4, "replicates": [0.75, None]}
    assert losses["nll"] == {"model": 0.5, "baseline": 0.7, "replicates": [0.25, None]}
    assert losses["missed_auc"]["model"] is None
    assert losses["missed_precision"]["model"] == 0.3


def arguments(dataset, folder):
    """Of the script, without the starts, for a task in a file of its own."""
    tasks = folder / "mine.toml"
    tasks.write_text(f'[kind]\ndataset = "{dataset}"\ntask = "classes"\nfolds = true\n')
    return [
        "--tasks", tasks, "--backbone", "test_resnet", "--image-size", 32, "--reference", "random", "--out", folder / "out",
    ]  # fmt: skip


def test_the_script_measures_missing_cells_and_writes_the_page(mock_dataset, pretrained, tmp_path, run_script):
    options = arguments(mock_dataset, tmp_path)
    options += ["--modes", "linear", "--shares", "1/2", "--starts", "random"]
    done = run_script("benchmark_downstream", *options, "--seeds", 1)
    assert "1 cells (1 linear): 0 done, 1 to do" in done.stdout
    files = sorted((tmp_path / "out/cells/kind/random").iterdir())
    assert [file.name for file in files] == ["linear,seed=1,share=1-2.json"]
    before = [file.stat().st_mtime_ns for file in files]
    save_file(timm.create_model("test_vit", img_size=32, num_classes=0).state_dict(), tmp_path / "vit.safetensors")
    more = [f"vit=test_vit={tmp_path / 'vit.safetensors'}", "--seeds", 1, 2]
    done = run_script("benchmark_downstream", *options, *more)
    assert "4 cells (4 linear): 1 done, 3 to do" in done.stdout
    assert [file.stat().st_mtime_ns for file in files] == before
    page = (tmp_path / "out/README.md").read_text()
    assert "4 cells of tasks x starts" in page
    assert "Not yet measured" not in page
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {row["start"] for row in results["reductions"]} == {"vit"}


def test_processes_share_out_gpus_and_cores_and_one_that_dies_is_replaced(mock_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    benchmark = some_benchmark(mock_dataset, tmp_path, {"random": None}, modes=("linear",), seeds=(1,))
    (tmp_path / ".cells").mkdir()
    cells, killed = [CellStatus(cell) for cell in benchmark.cells()], []

    def kill_the_first():
        if not killed and len(place.processes) == 2:
            killed.append(place.processes[0][0])
            killed[0].kill()

    with contextlib.closing(Workers(benchmark, 2, [])) as place:
        run_grid(cells, place, 2, 2, [], kill_the_first)
        processes = [process for process, _ in place.processes.values()]
    assert [progress.state for progress in cells] == 4 * ["done"]
    assert sum(progress.crashes for progress in cells) == 1
    assert all(process.exitcode is not None for process in processes), "none is left"
    cores = [resources_for_slot(slot, 2)[1] for slot in range(2)]
    for slot in range(2):
        text = place.log(slot).read_text()
        assert f"on cores {sorted(cores[slot])} with {{'CUDA_VISIBLE_DEVICES': '{slot}'}}" in text


def test_a_killed_benchmark_leaves_no_processes(mock_dataset, tmp_path):
    """Also while they train, with processes of their own that decode pictures."""
    options = [
        *arguments(mock_dataset, tmp_path),
        "--starts",
        "random",
        "--modes",
        "full",
        "--seen",
        1e6,
        "--workers",
        1,
    ]
    options, output = [*map(str, options), "--at-once", "2"], tmp_path / "output"
    command = (dict(os.environ), output, output, "scripts/benchmark_downstream.py", options)
    script = SERVER.Process(target=run_file, args=command)
    script.start()
    runs = tmp_path / "out/.cells"
    measuring, decoding = [], [[]]
    try:
        while len(measuring) < 2 or not all(decoding):
            logs = [log.read_text() for log in runs.glob("*.log")]
            assert script.is_alive(), [output.read_text(), *logs]
            time.sleep(0.1)
            pids = [int(line.split()[1]) for log in logs for line in log.splitlines() if line.startswith("process ")]
            measuring = [psutil.Process(pid) for pid in pids]
            decoding = [process.children() for process in measuring]
        started = [*measuring, *itertools.chain(*decoding)]
    finally:
        script.kill()
        script.join()
    _, alive = psutil.wait_procs(started, timeout=200)  # they save first
    left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    assert not left


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ("other={folder}", "{folder}: is neither the folder nor a reachable Hub id of a finished run"),
        ("random=x", "--starts random=x: give NAME=WEIGHTS or NAME=BACKBONE=WEIGHTS, or random, once"),
    ],
)
def test_a_wrong_start_is_refused_in_one_line(start, why, mock_dataset, tmp_path, monkeypatch):
    options = [*arguments(mock_dataset, tmp_path), "--starts", start.format(folder=tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark_downstream.py", *map(str, options)])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(ROOT / "scripts/benchmark_downstream.py"), run_name="__main__")
    assert refused.value.code.startswith(f"error: {why.format(folder=tmp_path)}")
    assert not (tmp_path / "out").exists()
