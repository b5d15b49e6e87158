"""A new kind of target is one new file (grades.py beside this one) and three lines elsewhere, no more: this proves it.

A copy of the package with that file and these lines trains it, measures it, and shows it wherever targets are shown.
"""

import json
import os
import shutil

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from hf_galaxy.targets import TARGETS
from tests.conftest import ROOT
from tests.forks import run_code
from tests.galaxies import jpeg_bytes

# File, a line of it, and what a contributor writes before that line: three lines in all.
LINES = [
    ("targets.py", "}\n", '    "grades": tuple(f"hf_galaxy.training.targets.grades.{name}" for name in ("Grades", "GradeReport")),\n'),
    ("training/settings.py", "    backbone: str | None = None\n", "    grades: tuple[str, ...] | None = None\n"),
    (
        "training/settings.py", "    backbone: str | None = None\n",
        '    """Columns of whole numbers from 0 to 4, one or several, for --task grades."""\n',
    ),
]  # fmt: skip

# All in one process, as the imports take longest.
PROGRAM = """
import json, sys
from pathlib import Path
import hf_galaxy
from hf_galaxy.commands import evaluate, predict, pretrain

package, data, out = map(Path, sys.argv[1:])
assert Path(hf_galaxy.__file__).parent == package
run, cpu = ["--run", out / "run"], ["--cpu"]
backbone = ["--backbone", "test_convnext", "--image-size", 32, "--epochs", 2, "--batch-size", 8, "--workers", 0]
commands = [
    (pretrain, ["--dataset", data, "--task", "grades", "--grades", "bar", "arms", *backbone, "--out", out / "run", *cpu]),
    (evaluate, [*run, "--split", "validation", "--workers", 0, *cpu]),
    (predict, [*run, "--dataset", data, "--split", "test", "--workers", 0, "--out", out / "predictions", *cpu]),
]
for module, arguments in commands:
    sys.argv = [module.__name__, *map(str, arguments)]
    module.command()

from hf_galaxy.downstream.measure import losses_of
from hf_galaxy.downstream.tasks import load_tasks, with_label
from hf_galaxy.errors import BadInput
from hf_galaxy.models.start import load_run
from hf_galaxy.reports import run_figures
from hf_galaxy.scaling.points import points_in
from hf_galaxy.training.settings import Settings

(out / "tasks.toml").write_text(f'[bars]\\ndataset = "{data}"\\ntask = "grades"\\ngrades = ["bar"]\\n')
task = with_label(load_tasks(str(out / "tasks.toml"))["bars"])
model, record = load_run(out / "run")
points = points_in(out / "run")
mistakes = []
for options in ({"task": "values", "grades": ("bar",)}, {"task": "grades", "grades": ("bar", "bar")}):
    try:
        Settings(dataset=("x",), out=out, **options).check()
    except BadInput as error:
        mistakes.append(str(error))
shown = {
    "measure": task.measure, "losses": losses_of(record.results["test"], "grades"), "mistakes": mistakes,
    "points": points[["figure", "measure", "loss", "baseline"]].to_dict("records"), "figures": list(run_figures.figures(record)),
}
print(json.dumps(shown))
"""


def galaxies(count):
    """Every other one has grade 4 of `bar`, the others 0; a third has no grade of `arms`."""
    rng = np.random.default_rng(count)
    bars = [4 * (i % 2) for i in range(count)]
    return datasets.Dataset.from_dict(
        {
            "id_str": [f"g{i}" for i in range(count)],
            "image": [{"bytes": jpeg_bytes(i), "path": None} for i in range(count)],
            "bar": bars,
            "arms": [None if i % 3 == 0 else int(rng.integers(5)) for i in range(count)],
        }
    ).cast_column("image", datasets.Image())


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with the new target."""
    package = tmp_path_factory.mktemp("contribution") / "hf_galaxy"
    shutil.copytree(ROOT / "hf_galaxy", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/training/targets/grades.py", package / "training/targets")
    for name, line, new in LINES:
        text = (package / name).read_text()
        assert text.count(line) == 1
        (package / name).write_text(text.replace(line, new + line))
    return package


def test_a_new_target_is_one_file_and_three_lines(package, tmp_path):
    assert "grades" not in TARGETS
    for split, count in (("train", 24), ("validation", 8), ("test", 12)):
        (tmp_path / "grades/data").mkdir(parents=True, exist_ok=True)
        galaxies(count).to_parquet(tmp_path / f"grades/data/{split}.parquet")
    environment = os.environ | {"PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    done = run_code(PROGRAM, package, tmp_path / "grades", tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])

    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["finished"]
    assert (record["dataset"]["grades"], record["settings"]["grades"]) == (["bar", "arms"], ["bar", "arms"])
    assert record["baseline"]["means"][0] == pytest.approx(0.5), "half of them have grade 4 of 4"
    results = record["results"]
    assert results.keys() == {"test", "validation"}
    bar = results["test"]["grades"]["bar"]
    assert (bar["galaxies"], bar["distance"]["baseline"]) == (12, pytest.approx(2))
    losses = [entry["validation_loss"] for entry in record["training"]["history"] if entry]
    assert results["validation"]["loss"]["model"] == pytest.approx(min(losses), abs=1e-5)

    card = (tmp_path / "run/README.md").read_text()
    assert "Predicts from a picture of a galaxy: bar, arms." in card
    assert "| grade | galaxies | mean distance | baseline |" in card
    assert "| bar | 12 | " in card
    assert "All 12 galaxies: loss " in card
    assert {result.metric_name for result in ModelCard(card).data.eval_results} == {
        "distance", "distance of bar", "distance of arms",
    }  # fmt: skip
    assert shown["figures"] == ["figures/loss.png"]

    table = pq.read_table(tmp_path / "predictions")
    assert table.column_names == ["dataset", "split", "id_str", "bar", "arms"]
    assert all(0 < value < 1 for value in table["bar"].to_pylist())
    distance = np.mean([abs(4 * value - 4 * (i % 2)) for i, value in enumerate(table["bar"].to_pylist())])
    assert bar["distance"]["model"] == pytest.approx(distance, rel=1e-4)

    points = {point["figure"]: point for point in shown["points"]}
    assert {point["measure"] for point in points.values()} == {"distance"}
    assert points["bar"]["loss"] == bar["distance"]["model"]
    assert points["all"]["loss"] == results["test"]["loss"]["model"]
    assert shown["measure"] == "distance"
    assert shown["losses"]["distance"]["model"] == pytest.approx(points["all"]["loss"], rel=1e-5)
    assert shown["mistakes"] == [
        "--grades: is for --task grades; --task values has --values, --unit-interval", "--grades bar bar: names a column twice",
    ]  # fmt: skip
