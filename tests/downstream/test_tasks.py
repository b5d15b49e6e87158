"""Tasks that we ship are tasks, and files of a user's that are none say what is wrong."""

from pathlib import Path

import datasets
import pytest

from hf_galaxy.downstream.families import RARE
from hf_galaxy.downstream.tasks import TASK_SETS, load_tasks, with_label
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.reading import Reading
from hf_galaxy.reports.measures import MEASURES
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.targets import TARGETS, report_class, target_class
from hf_galaxy.training.settings import Settings, settings_of, to_record
from hf_galaxy.training.targets.classes import Classes
from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in TASK_SETS.glob("*.toml")))
def test_shipped_tasks_are_whole(name):
    tasks = load_tasks(name)
    assert len(tasks) == 5
    for task in tasks.values():
        assert task.title != task.name
        assert task.measure in report_class(task.kind)().measures


def test_tasks_are_compared_by_measures_that_have_a_meaning():
    for kind in TARGETS:
        assert set(report_class(kind)().measures) <= set(MEASURES)


def test_tasks_of_the_paper_are_the_datasets_that_have_cards():
    cards = "\n".join(path.read_text() for path in (ROOT / "dataset_cards").glob("*/card.md"))
    for task in load_tasks("scaling_laws_paper").values():
        assert f"[{task.dataset}]" in cards


def test_a_few_lines_are_a_task(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[bars]\ndataset = "data/mine"\ntask = "classes"\nlabel = "bar"\n[z]\ndataset = "data/mine"\nvalues = ["z"]\n'
    )
    bars, z = load_tasks(str(file)).values()
    assert (bars.name, bars.title, bars.kind, bars.measure, bars.folds) == ("bars", "bars", "classes", None, False)
    assert bars.options == {"task": "classes", "label": "bar"}
    assert z.options["values"] == ("z",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\ntask = "votes"\n', r"\[a\] must be a table with a dataset"),
        ("a = 3\n", r"\[a\] must be a table"),
        ('[a]\ndataset = "x"\nepochs = 3\n', "'epochs' is no option of a task"),
        (
            '[a]\ndataset = "x"\ntask = "boxes"\n',
            "'boxes' has the wrong type; give one of 'votes', 'classes', 'values'",
        ),
        (
            '[a]\ndataset = "x"\nmeasure = "error"\n',
            "measure = 'error' is none of above_oracle, true_rmse, excess, rmse",
        ),
        ('[a]\ndataset = "x"\ntask = "votes"\nlabel = "bar"\n', "--label: is for --task classes"),
        ('[a]\ndataset = "x"\nlabel = "bar"\nvalues = ["z"]\n', r"\[a\]: --label and --values: each names a target"),
        ("[a\n", "cannot be read"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        load_tasks(str(tmp_path / "mine.toml"))


def test_a_rare_class_has_each_class_count_the_same(mock_dataset, tmp_path):
    rows = datasets.Dataset.from_dict(
        {"id_str": [str(i) for i in range(102)], "kind": ["a"] * 96 + ["b"] * 4 + [None] * 2}
    )
    assert Classes.rarest({"label": "kind"}, lambda: rows) == Classes.rarest({"label": "kind=b"}, lambda: rows) == 0.04
    assert target_class("votes").rarest({}, lambda: rows) is None
    file = tmp_path / "mine.toml"
    file.write_text(f'[mock]\ndataset = "{mock_dataset}"\nlabel = "mock_class"\n[votes]\ndataset = "{mock_dataset}"\n')
    first = next(iter(open_dataset(str(mock_dataset)).values()))
    shares = first.with_format("arrow")[:]["mock_class"].value_counts().field("counts").to_numpy()
    mock, votes = map(with_label, load_tasks(str(file)).values())
    assert mock.measure == ("balanced_error" if shares.min() / shares.sum() < RARE else "error")
    assert votes.measure == "true_rmse"


def test_an_unknown_name_names_those_there_are():
    with pytest.raises(BadInput, match="public_sets, scaling_laws_paper"):
        load_tasks("galaxies")


def test_the_only_column_of_classes_is_the_label(mock_dataset, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'[mock]\ndataset = "{mock_dataset}"\ntask = "classes"\n')
    task = with_label(load_tasks(str(file))["mock"])
    assert task.options["label"] == "mock_class"
    rows = datasets.load_dataset(str(mock_dataset))["train"]
    rows.add_column("second", [0] * len(rows), feature=datasets.ClassLabel(names=["a", "b"])).to_parquet(
        tmp_path / "two/data/train-00000.parquet"
    )
    file.write_text(f'[mock]\ndataset = "{tmp_path / "two"}"\ntask = "classes"\n')
    with pytest.raises(BadInput, match=r"task mock: .*label column; .* has mock_class, second"):
        with_label(load_tasks(str(file))["mock"])


def test_pictures_of_a_task_and_of_a_record_are_paths(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[one]\ndataset = "a.csv"\nlabel = "bar"\nimages = "b"\n[two]\ndataset = "a.csv"\nlabel = "bar"\nimages = ["b"]\n'
    )
    for task in load_tasks(str(file)).values():
        settings = Settings(dataset=(task.dataset,), out=tmp_path, **task.options)
        again = settings_of(RunRecord(command="", settings=to_record(settings)))
        assert settings.images == again.images == Reading.of(task.options).images == (Path("b"),)
