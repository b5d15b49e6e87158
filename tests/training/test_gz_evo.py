"""The largest dataset of Galaxy Zoo works by its name, as it stands on the Hub and without us having it.

mwalmsley/gz_evo is gated and has 18 GB, so a small folder of its layout plays its part: columns of five campaigns
without the questions that it lacks, fractions that are 0 or NaN where there are no votes, a `summary` that is often
empty, no validation split, configurations in the card but no features, several shards.
"""

import io
import os
import runpy
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Features, Image, Value
from PIL import Image as Picture

from hf_galaxy import load_tree
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import Framing
from hf_galaxy.decision_tree import tree_of_columns
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.randomness import hashed_place
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.votes import Votes
from tests.commands.test_scripts import TINY, record_of
from tests.conftest import ROOT
from tests.fake_hub import FakeHub
from tests.forks import fork_server, run_forked
from tests.galaxies import votes_of

NAME = "mwalmsley/gz_evo"
CAMPAIGNS = ["gz_decals_dr5", "gz2", "gz_ukidss", "gz_candels", "gz_hubble"]
VOLUNTEERS = [5, 40, 30, 20, 60]
TREE = load_tree(CAMPAIGNS)
LACKING = ["clump-count-candels", "clump-count-hubble"]
QUESTIONS = [q.name for q in TREE.questions if q.name not in LACKING]
COLUMNS = [column for q in TREE.questions if q.name not in LACKING for column in q.columns]
SUMMARIES = ["", "smooth_round", "edge_on_disk", "", "barred_spiral"]
GALAXIES, TRAIN, PER_SHARD, TINY_SHARE = 110, 88, 44, 24
CARD = """---
license: cc-by-nc-sa-4.0
pretty_name: Galaxy Zoo Evo
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: tiny
  data_files:
  - {split: train, path: tiny/train-*}
  - {split: test, path: tiny/test-*}
---
"""


def random_votes(rng):
    """(N, A) votes of volunteers who walk the trees: each galaxy is in one campaign, every tenth in the next one too."""
    votes = np.zeros((GALAXIES, len(TREE.columns)), np.int32)
    for i in range(GALAXIES):
        for c in {i % 5, (i + (i % 10 == 0)) % 5}:
            for q in (q for q in TREE.order if TREE.questions[q].campaign == CAMPAIGNS[c]):
                parents = TREE.parents[q]
                asked = votes[i, parents].sum() if parents else rng.poisson(VOLUNTEERS[c]) + 1
                answers = len(TREE.questions[q].answers)
                votes[i, TREE.slices[q]] = rng.multinomial(asked, rng.dirichlet(np.ones(answers)))
    return votes


def noise(rng):
    file = io.BytesIO()
    Picture.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def gz_evo_table():
    """All galaxies, in the columns of mwalmsley/gz_evo."""
    rng = np.random.default_rng(0)
    votes = random_votes(rng)
    columns = {
        "image": pa.array([{"bytes": noise(rng), "path": f"{i}.jpg"} for i in range(GALAXIES)]),
        "id_str": pa.array([f"J{i:06}" for i in range(GALAXIES)]),
        "dataset_name": pa.array([CAMPAIGNS[i % 5] for i in range(GALAXIES)]),
        "ra": pa.array(rng.uniform(0, 360, GALAXIES)),
        "dec": pa.array(rng.uniform(-60, 60, GALAXIES)),
    }
    for q, where in zip(TREE.questions, TREE.slices, strict=True):
        if q.name in LACKING:
            continue
        own, total = votes[:, where], votes[:, where].sum(axis=1)
        inside = votes[:, TREE.slices[TREE.campaigns[q.campaign][0]]].any(axis=1)
        fractions = np.divide(own, total[:, None], out=np.full(own.shape, np.nan), where=total[:, None] > 0)
        fractions = np.where(inside[:, None], fractions, 0).astype(np.float32)
        for a, column in enumerate(q.columns):
            columns |= {column: pa.array(own[:, a]), f"{column}_fraction": pa.array(fractions[:, a])}
        columns[f"{q.name}_total-votes"] = pa.array(total.astype(np.int32))
    columns["summary"] = pa.array([SUMMARIES[i // 5 % 5] for i in range(GALAXIES)])
    return pa.table(columns)


def with_features(table):
    """The schema as the library `datasets` writes it, with its features in the metadata."""
    names = {pa.string(): "string", pa.float64(): "float64", pa.float32(): "float32", pa.int32(): "int32"}
    features = {f.name: Image() if f.name == "image" else Value(names[f.type]) for f in table.schema}
    return table.cast(Features(features).arrow_schema)


def with_gaps(table, kind, gap):
    """Where a galaxy is not in a campaign its counts are no zeros, but NaN or null in columns of this kind."""
    for campaign in CAMPAIGNS:
        tree = load_tree(campaign)
        inside = pc.greater(table[f"{tree.questions[0].name}_total-votes"], 0)
        for column in set(tree.columns) & set(table.column_names):
            place = table.column_names.index(column)
            table = table.set_column(place, column, pc.if_else(inside, table[column].cast(kind), pa.scalar(gap, kind)))
    return table


VARIANTS = {
    "as on the Hub": with_features,
    "without features": lambda table: table,
    "null where not asked": lambda table: with_features(with_gaps(table, pa.int32(), None)),
    "NaN where not asked": lambda table: with_features(with_gaps(table, pa.float64(), float("nan"))),
}


def write(folder, table):
    """The dataset's files."""
    parts = {f"data/train-{i:05}-of-00002": (i * PER_SHARD, PER_SHARD) for i in range(2)}
    parts |= {"data/test-00000-of-00001": (TRAIN, GALAXIES - TRAIN)}
    parts |= {"tiny/train-00000-of-00001": (0, TINY_SHARE), "tiny/test-00000-of-00001": (TRAIN, TINY_SHARE // 4)}
    for name, (first, rows) in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(first, rows), folder / f"{name}.parquet", row_group_size=10)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def table():
    return gz_evo_table()


@pytest.fixture(scope="module")
def hub(table, tmp_path_factory):
    """A Hub that has it; the scripts that are run meanwhile ask this one."""
    root = tmp_path_factory.mktemp("hub")
    with FakeHub(root / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        write(hub.folder("datasets", NAME), with_features(table))
        for name, value in hub.environment.items():
            patch.setenv(name, value)
        yield hub


@pytest.fixture(scope="module")
def on_disk(hub):
    """The same folder, for this process, which has no Hub."""
    return hub.folder("datasets", NAME)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, table, tmp_path_factory):
    return write(tmp_path_factory.mktemp("variant"), VARIANTS[request.param](table))


@pytest.fixture(params=[False, True], ids=["copied", "streamed"])
def opened(variant, request):
    return open_dataset(str(variant), streaming=request.param)


def column_of(rows, column):
    return rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def votes_by_name(table):
    votes = np.stack([table[column].to_numpy() for column in COLUMNS], axis=1)
    return dict(zip(table["id_str"].to_pylist(), votes, strict=True))


def test_its_tree_is_all_of_the_campaigns_but_the_questions_that_it_lacks(opened):
    tree = tree_of_columns(opened["train"].column_names)
    assert tree.columns == COLUMNS
    assert list(tree.campaigns) == CAMPAIGNS
    assert [len(questions) for questions in tree.campaigns.values()] == [10, 10, 10, 11, 12]


def test_an_eighth_of_train_becomes_the_validation_split_by_name_alone(opened):
    names = {split: column_of(rows, "id_str") for split, rows in opened.items()}
    train = [f"J{i:06}" for i in range(TRAIN)]
    chosen = [name for name in train if hashed_place(f"validation of {name}") < 1 / 8]
    assert names["validation"] == chosen
    assert names["train"] == [name for name in train if name not in chosen]
    assert names["test"] == [f"J{i:06}" for i in range(TRAIN, GALAXIES)]
    assert 5 < len(chosen) < 20


def test_votes_are_those_of_the_file_and_zero_outside_a_galaxys_campaign(opened, table):
    expected, tree = votes_by_name(table), tree_of_columns(opened["train"].column_names)
    for rows in opened.values():
        votes, names = votes_of(rows, tree), column_of(rows, "id_str")
        np.testing.assert_array_equal(votes, [expected[name] for name in names])
        some = [len(rows) - 1, 0, len(rows) // 2]
        batch = Galaxies(rows, Framing(32), Votes(tree))[some]
        np.testing.assert_array_equal(batch["votes"], votes[some])
        assert batch["votes"].dtype == torch.int32
        assert batch["pixels"].float().std() > 30


def test_a_nan_fraction_hides_no_votes_on_other_questions(opened):
    """The folder has the trap: NaN stands for a question that was not asked inside a campaign, 0 outside of it."""
    nan = np.isnan(np.concatenate([column_of(rows, "bar-gz2_no_fraction") for rows in opened.values()]))
    assert 0 < nan.sum() < GALAXIES / 5
    tree = tree_of_columns(opened["train"].column_names)
    votes = np.concatenate([votes_of(rows, tree) for rows in opened.values()])[nan]
    assert (votes[:, tree.columns.index("smooth-or-featured-gz2_smooth")] > 0).any()
    assert (votes[:, [tree.columns.index(f"bar-gz2_{answer}") for answer in ("yes", "no")]] == 0).all()


def test_a_summary_is_a_label_where_it_is_not_empty(opened):
    label = Classes.of_rows(opened["train"], "summary", NAME)
    assert label.names == ("barred_spiral", "edge_on_disk", "smooth_round")
    rows, indices = label.labelled(opened["test"], NAME)
    assert [label.names[i] for i in indices] == [name for name in column_of(opened["test"], "summary") if name]
    assert Galaxies(rows, Framing(32), label)[[2, 0]]["labels"].tolist() == [indices[2], indices[0]]


@pytest.fixture(scope="module")
def pretrain_by_name(hub, tmp_path_factory):
    """Run pretrain.py on the name of the dataset, with an empty cache; returns the record and the cache."""
    cache = tmp_path_factory.mktemp("cache")
    environment = os.environ | hub.environment | {"HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}

    def pretrain(*options, processes=1):
        shutil.rmtree(cache)
        out = tmp_path_factory.mktemp("pretrained") / "run"
        done = run_forked(
            "scripts/pretrain.py", "--dataset", NAME, *TINY, "--epochs", 1, *options, "--out", out,
            environment=environment, processes=processes, server=server,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"learning {len(QUESTIONS)} questions of {'+'.join(CAMPAIGNS)}" in done.stderr
        assert f"there are no votes for {', '.join(LACKING)}" in done.stderr
        return record_of(out), cache

    with fork_server(environment) as server:
        yield pretrain


def check(record, galaxies):
    assert record["finished"]
    assert record["dataset"]["name"] == NAME
    assert record["dataset"]["title"] == "Galaxy Zoo Evo"
    assert record["dataset"]["questions"] == QUESTIONS
    splits = record["dataset"]["splits"]
    assert (splits["train"] + splits["validation"], splits["test"]) == galaxies
    results = record["results"]["test"]
    assert list(results["questions"]) == QUESTIONS
    assert results["galaxies"] == galaxies[1]
    assert np.isfinite([results["loss"]["model"], results["loss"]["baseline"]]).all()
    assert np.isfinite([loss for _, loss in record["training"]["losses"]]).all()


def test_it_is_learnt_by_name_copied_or_streamed(pretrain_by_name):
    copied, cache = pretrain_by_name()
    check(copied, (TRAIN, GALAXIES - TRAIN))
    assert list(cache.rglob("*.arrow"))
    streamed, _ = pretrain_by_name("--streaming")
    check(streamed, (TRAIN, GALAXIES - TRAIN))
    assert not [*cache.rglob("*.arrow"), *cache.rglob("*.parquet")], "nothing is copied"
    assert copied["baseline"] == streamed["baseline"]
    assert copied["dataset"] == streamed["dataset"]
    ours, theirs = (record["results"]["test"]["loss"]["baseline"] for record in (copied, streamed))
    assert ours == pytest.approx(theirs, rel=1e-5)
    inside = {name: c["galaxies"] for name, c in copied["results"]["test"]["campaigns"].items()}
    assert sum(inside.values()) == GALAXIES - TRAIN + 2, "two are in two campaigns"


def test_two_processes_stream_its_small_configuration(pretrain_by_name):
    record, _ = pretrain_by_name("--streaming", "--dataset-config", "tiny", "--cpu", processes=2)
    check(record, (TINY_SHARE, TINY_SHARE // 4))
    assert record["environment"]["processes"] == 2


def run_here(monkeypatch, script, *arguments):
    """Run a script in this process, to save the start of another; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_classes_are_learnt_from_the_galaxies_that_have_one(on_disk, tmp_path, monkeypatch, caplog):
    options = (
        "--task",
        "classes",
        "--label",
        "summary",
        "--epochs",
        1,
        "--streaming",
        "--cpu",
        "--out",
        tmp_path / "run",
    )
    assert run_here(monkeypatch, "pretrain", "--dataset", on_disk, *TINY, *options) == 0
    record = record_of(tmp_path / "run")
    summaries = {split: column_of(rows, "summary") for split, rows in open_dataset(str(on_disk)).items()}
    for split, values in summaries.items():
        assert f"{values.count('')} of the {len(values)} galaxies of split {split} of " in caplog.text
        assert record["dataset"]["splits"][split] == len(values) - values.count("") > 0
    results = record["results"]["test"]
    assert results["galaxies"] == record["dataset"]["splits"]["test"]
    assert np.isfinite(results["loss"]["model"])


def test_the_checker_finds_nothing_wrong_and_then_a_wrong_total(on_disk, tmp_path, monkeypatch, capsys):
    assert run_here(monkeypatch, "check_dataset", on_disk) == 0
    said = capsys.readouterr().out
    assert f"{on_disk}: no problems" in said
    assert f"{len(QUESTIONS)} questions of {', '.join(CAMPAIGNS)}" in said
    assert "note    fractions   some fractions are NaN or null; mask by the votes" in said
    assert "no split validation" in said
    assert run_here(monkeypatch, "check_dataset", on_disk, "--dataset-config", "tiny") == 0

    spoilt = shutil.copytree(on_disk, tmp_path / "spoilt")
    file, column = spoilt / "data/train-00001-of-00002.parquet", "bar-hubble_total-votes"
    table = pq.read_table(file)
    wrong = pa.array([total + (i == 7) for i, total in enumerate(table[column].to_pylist())], pa.int32())
    pq.write_table(table.set_column(table.column_names.index(column), table.schema.field(column), wrong), file)
    capsys.readouterr()
    assert run_here(monkeypatch, "check_dataset", spoilt) == 1
    said = capsys.readouterr().out
    assert f"problem totals      {column} is not the sum of its answers (1 times)" in said
    assert f"{spoilt}: 1 problem\n" in said
