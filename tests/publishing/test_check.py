"""A dataset that is well passes the check, and whatever is spoilt in it is found, with its numbers and no other finding."""

import io
import json
import re
import runpy
import shutil
import sys
from contextlib import redirect_stdout

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hf_galaxy import load_tree
from hf_galaxy.commands.check import Check, main
from hf_galaxy.data.schema import row_features
from hf_galaxy.importing.duplicates import fine_structure, pictures_alike
from hf_galaxy.importing.plan import Row, batch_of
from tests.conftest import ROOT
from tests.galaxies import jpeg_bytes, published

TREE = load_tree("gz_jwst_ceers")
SPLITS = ("train", "validation", "test")
FIRST, BAR, PROBLEM = (f"{question}-jwst" for question in ("smooth-or-featured", "bar", "problem"))
GALAXIES = 60


class Survey:
    """Galaxies whose votes walk a tree, far from each other, with derived columns beside the first question as in GZ Evo."""

    tree, campaigns, total_votes, split_names, notes = TREE, None, None, None, ()
    values, caption, rendering = ("ra",), "kind", None
    derived = {f"{FIRST}_total-votes": "int32"} | {
        f"{column}_fraction": "float32" for column in TREE.questions[0].columns
    }
    features = row_features(TREE, {"kind": ["a", "b"]}, {"ra": "float64", "dec": "float64", **derived})

    def __init__(self):
        rng = np.random.default_rng(0)
        self.ids = [f"galaxy-{i}" for i in range(GALAXIES)]
        self.positions = np.stack([np.arange(GALAXIES) * 6.0, np.arange(GALAXIES) - 30.0], axis=1)
        self.walks = np.zeros((GALAXIES, len(TREE.columns)), int)
        for walk in self.walks:
            for q in TREE.order:
                asked = walk[TREE.parents[q]].sum() if TREE.parents[q] else rng.integers(10, 40)
                answers = len(TREE.questions[q].answers)
                walk[TREE.slices[q]] = rng.multinomial(asked, np.ones(answers) / answers)

    def batch(self, rows):
        return batch_of(self.features, map(self.row, rows))

    def row(self, i):
        votes = dict(zip(TREE.columns, self.walks[i].tolist(), strict=True))
        total = sum(votes[column] for column in TREE.questions[0].columns)
        fractions = {f"{column}_fraction": votes[column] / total for column in TREE.questions[0].columns}
        ra, dec = self.positions[i].tolist()
        image = {"bytes": jpeg_bytes(i), "path": f"{i}.jpg"}
        columns = {"id_str": self.ids[i], "image": image, "kind": "ab"[i % 2], "ra": ra, "dec": dec}
        return Row(columns | votes | fractions | {f"{FIRST}_total-votes": total})


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked") / "healthy"
    folder.mkdir()
    published(Survey(), folder)
    return folder


@pytest.fixture
def dataset(healthy, tmp_path):
    """A copy to spoil. Without statistics.json, which would differ too."""
    folder = shutil.copytree(healthy, tmp_path / "dataset")
    (folder / "statistics.json").unlink()
    return folder


@pytest.fixture
def findings():
    """Check a folder; each finding but those that all is well, as [level, check, text]."""

    def check(folder, **settings):
        out = io.StringIO()
        with redirect_stdout(out), pytest.raises(SystemExit) as stopped:
            main(Check(dataset=str(folder), threads=1, **settings))
        *lines, empty, summary = out.getvalue().splitlines()
        found = [line.split(maxsplit=2) for line in lines]
        problems = sum(level == "problem" for level, _, _ in found)
        assert not empty
        assert summary == f"{folder}: {problems or 'no'} problem{'' if problems == 1 else 's'}"
        assert stopped.value.code == (problems > 0)
        return [finding for finding in found if finding[0] != "ok"]

    return check


def called(monkeypatch, *arguments):
    """Exit status of the whole script, or its error line."""
    monkeypatch.setattr(sys, "argv", ["check_dataset", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts/check_dataset.py"), run_name="__main__")
    return stopped.value.code


def file_of(folder, split):
    return folder / f"data/{split}-00000.parquet"


def rows_of(folder, split):
    return pq.read_table(file_of(folder, split)).to_pylist()


def write(folder, split, rows, schema=Survey.features.arrow_schema):
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file_of(folder, split))


def spoil(folder, split, number, **values):
    """Give some row other values; returns the row."""
    rows = rows_of(folder, split)
    rows[number] |= values
    write(folder, split, rows)
    return rows[number]


def rewrite(folder, change, features, splits=SPLITS):
    """Other columns, and no card that says something else of them."""
    for split in splits:
        write(folder, split, list(map(change, rows_of(folder, split))), features.arrow_schema)
    (folder / "README.md").unlink()
    shutil.rmtree(folder / "tiny")


NO_CARD = ["note", "card", "does not say how many galaxies each split has"]


def test_a_healthy_dataset_has_no_problem(healthy, monkeypatch, capsys):
    assert called(monkeypatch, healthy) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{healthy}: no problems"
    assert {line.split()[0] for line in lines[:-2]} == {"ok"}
    checks = {line.split()[1] for line in lines[:-2]}
    assert checks == {
        "schema",
        "pictures",
        "ids",
        "positions",
        "files",
        "looks",
        "tree",
        "votes",
        "card",
        "statistics",
        "tables",
        "config",
    }
    assert "60 decoded to their last pixel: 60 64 x 64 RGB JPEG" in "\n".join(lines)
    assert f"{Survey().walks.sum():,} on 60 galaxies" in "\n".join(lines)


@pytest.mark.parametrize("config", [None, "default", "tiny"])
def test_every_configuration_can_be_checked(healthy, findings, config):
    assert findings(healthy, config=config) == []


@pytest.mark.parametrize(("split", "where"), [("test", "in different splits"), ("train", "in one split")])
def test_an_id_that_stands_there_twice_is_a_problem(dataset, findings, split, where):
    name = spoil(dataset, "train", 0, id_str=rows_of(dataset, split)[1]["id_str"])["id_str"]
    text = f"2 galaxies {where} have the same id_str: {name} (train) = {name} ({split})"
    assert findings(dataset) == [["problem", "ids", text]]


def test_a_galaxy_without_an_id_is_a_problem(dataset, findings):
    spoil(dataset, "train", 0, id_str="")
    spoil(dataset, "test", 0, id_str=None)
    assert findings(dataset) == [["problem", "ids", "2 galaxies have no id_str"]]


@pytest.mark.parametrize(
    ("split", "level", "where"), [("test", "problem", "in different splits"), ("train", "note", "in one split")]
)
def test_galaxies_at_one_place_may_not_be_in_two_splits(dataset, findings, split, level, where):
    other = rows_of(dataset, split)[1]
    place = {"ra": other["ra"] + 12 / 3600 / np.cos(np.radians(other["dec"])), "dec": other["dec"] - 15.9 / 3600}
    row = spoil(dataset, "train", 0, **place)
    pair = f"{row['id_str']} (train) = {other['id_str']} ({split})"
    text = f"2 galaxies {where} are within 20 arcsec of another: {pair}"
    assert findings(dataset) == [[level, "positions", text]]
    spoil(dataset, "train", 0, **place | {"dec": other["dec"] - 16.1 / 3600})
    assert findings(dataset) == []


def test_places_that_are_not_known_are_no_places(dataset, findings):
    for split in ("train", "test"):
        spoil(dataset, split, 0, ra=None, dec=None)
        spoil(dataset, split, 1, ra=float("nan"))
    assert findings(dataset) == []


@pytest.mark.parametrize(
    ("split", "level", "where"), [("test", "problem", "in different splits"), ("train", "note", "in one split")]
)
def test_a_picture_may_not_be_in_two_splits(dataset, findings, split, level, where):
    other = rows_of(dataset, split)[1]
    row = spoil(dataset, "train", 0, image=other["image"])
    pair = f"{row['id_str']} (train) = {other['id_str']} ({split})"
    assert findings(dataset) == [
        [level, "files", f"2 galaxies {where} have the same picture file: {pair}"],
        [level, "looks", f"2 galaxies {where} have the same picture, perhaps encoded or scaled otherwise: {pair}"],
    ]


def encoded(picture, kind="PNG", **options):
    if not isinstance(picture, Image.Image):
        picture = Image.open(io.BytesIO(picture))
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def test_a_picture_that_was_encoded_again_looks_the_same(dataset, findings):
    other = rows_of(dataset, "test")[1]
    row = spoil(dataset, "train", 0, image=encoded(other["image"]["bytes"]))
    pair = f"{row['id_str']} (train) = {other['id_str']} (test)"
    text = f"2 galaxies in different splits have the same picture, perhaps encoded or scaled otherwise: {pair}"
    assert findings(dataset) == [["problem", "looks", text]]


def smooth_galaxy(seed):
    """A spot on a noisy sky, blurred like the galaxies of surveys."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    a, b, angle = *rng.uniform(0.1, 0.4, 2), rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = 230 * np.exp(-np.sqrt((u / a) ** 2 + (v / b) ** 2)) + gaussian_filter(rng.normal(15, 20, x.shape), 1.5)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("change", [lambda p: encoded(p, "JPEG", quality=80), lambda p: encoded(p.reduce(2))])
def test_a_picture_that_lost_a_little_looks_the_same(dataset, findings, change):
    galaxy = smooth_galaxy(1)
    spoil(dataset, "test", 1, image=encoded(galaxy, "JPEG", quality=95))
    spoil(dataset, "train", 0, image=change(galaxy))
    assert [finding[:2] for finding in findings(dataset)] == [["problem", "looks"]]


@pytest.mark.parametrize(("pictures", "worst"), [("ceers/images", 0.80), ("rings/images", 0.45)])
def test_of_real_galaxies_the_same_picture_is_found_and_no_two_others(pictures, worst, shared_data):
    files = sorted((shared_data / pictures).iterdir())[:300]
    originals = [Image.open(file) for file in files]
    again = [Image.open(io.BytesIO(encoded(p.resize((200, 200)), "JPEG", quality=75)["bytes"])) for p in originals]
    structures = np.stack([fine_structure(picture) for picture in originals + again])
    assert pictures_alike(structures).tolist() == [[i, i + 300] for i in range(300)]
    correlations = structures[:300].astype(np.float32) @ structures[:300].T.astype(np.float32)
    assert np.triu(correlations, 1).max() < worst, "far from alike"


UNDECODABLE = {
    "truncated": ({"bytes": jpeg_bytes()[:900], "path": None}, "truncated"),
    "text": ({"bytes": b"this is text", "path": None}, "is not a picture"),
    "no bytes": ({"bytes": None, "path": "1.jpg"}, ""),
    "null": (None, ""),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_a_picture_that_cannot_be_decoded_is_a_problem(dataset, findings, kind):
    image, reason = UNDECODABLE[kind]
    name = spoil(dataset, "validation", 0, image=image)["id_str"]
    problem, note = [finding for finding in findings(dataset) if finding[1] == "pictures"]
    assert problem[0] == "problem"
    assert re.fullmatch(rf"1 cannot be decoded: {name} \(.*{reason}.*\)", problem[2])
    assert note[0] == "note"
    assert note[2].startswith("59 decoded to their last pixel")


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_one_bad_picture_is_no_reason_to_doubt_the_card(dataset, findings, kind):
    spoil(dataset, "validation", 0, image=UNDECODABLE[kind][0])
    assert [finding[:2] for finding in findings(dataset)] == [["problem", "pictures"], ["note", "pictures"]]


def test_many_findings_of_a_kind_are_counted_and_three_named(dataset, findings):
    names = [spoil(dataset, "train", i, image=UNDECODABLE["text"][0])["id_str"] for i in range(7)]
    text = findings(dataset)[0][2]
    assert text.startswith(f"7 cannot be decoded: {names[0]} (")
    assert text.endswith(" and 4 more")
    assert text.count("galaxy-") == 3


def test_a_picture_of_one_colour_is_noted_once(dataset, findings):
    names = [
        spoil(dataset, split, 0, image=encoded(Image.new("RGB", (64, 64), (level,) * 3)))["id_str"]
        for split, level in (("train", 0), ("test", 9))
    ]
    text = f"2 show nothing, all pixels are equal: {', '.join(names)}"
    assert findings(dataset) == [["note", "pictures", text]]


@pytest.mark.parametrize(("width", "height", "small"), [(31, 90, True), (90, 31, True), (32, 32, False)])
def test_a_small_picture_is_noted(dataset, findings, width, height, small):
    picture = Image.open(io.BytesIO(jpeg_bytes(99))).resize((width, height))
    name = spoil(dataset, "test", 0, image=encoded(picture))["id_str"]
    expected = ["note", "pictures", f"1 are smaller than 32 px: {name}"]
    assert findings(dataset) == [expected] * small


def shifted(row, by):
    """The votes of `row` with one answer's moved to its neighbour, so that the tree stays as it is."""
    return {f"{BAR}_weak": -by, f"{BAR}_no": row[f"{BAR}_weak"] + row[f"{BAR}_no"] + by}


def test_negative_votes_are_a_problem(dataset, findings):
    for split in ("train", "test"):
        spoil(dataset, split, 0, **shifted(rows_of(dataset, split)[0], 3))
    assert findings(dataset) == [["problem", "votes", f"{BAR} has numbers that are not votes (2 times)"]]


def test_votes_stored_as_floats_are_noted_and_half_votes_are_a_problem(dataset, findings):
    features = Survey.features | {f"{BAR}_{a}": datasets.Value("float64") for a in ("strong", "weak")}
    rewrite(dataset, lambda row: row, datasets.Features(features))
    floats = ["note", "schema", "votes are stored as float64, int32; int32 is sufficient and expected"]
    assert findings(dataset) == [floats, NO_CARD]
    rows = rows_of(dataset, "train")
    rows[0] |= {f"{BAR}_weak": rows[0][f"{BAR}_weak"] + 0.5}
    write(dataset, "train", rows, datasets.Features(features).arrow_schema)
    assert findings(dataset) == [
        floats,
        ["problem", "votes", f"{BAR} has numbers that are not votes (1 times)"],
        NO_CARD,
    ]


@pytest.mark.parametrize("number", [np.inf, 2.0**40])
def test_votes_that_no_run_would_learn_are_a_problem(dataset, findings, number):
    features = datasets.Features(Survey.features | {f"{BAR}_weak": datasets.Value("float64")})
    rewrite(dataset, lambda row: row, features)
    rows = rows_of(dataset, "train")
    rows[0] |= {f"{BAR}_weak": number}
    write(dataset, "train", rows, features.arrow_schema)
    assert ["problem", "votes", f"{BAR} has numbers that are not votes (1 times)"] in findings(dataset)


def test_missing_votes_are_noted(dataset, findings):
    unseen = dict.fromkeys(TREE.columns, 0) | {f"{FIRST}_total-votes": 0}
    spoil(dataset, "train", 0, **unseen | {f"{PROBLEM}_star": None})
    spoil(dataset, "test", 0, **dict.fromkeys(unseen))
    found = findings(dataset)
    assert ["note", "votes", f"{PROBLEM} has null or NaN instead of 0 (2 times)"] in found
    assert ["note", "votes", f"{FIRST} has null or NaN instead of 0 (1 times)"] in found
    assert len(found) == len(TREE.questions)


@pytest.mark.parametrize("broken", [1, 3])
def test_votes_that_break_the_tree_are_a_problem_beyond_the_tolerance(dataset, findings, broken):
    rows, asked = rows_of(dataset, "train"), GALAXIES - 5
    for row in rows[:broken]:
        row[f"{PROBLEM}_star"] += 1
    for row in rows[-5:]:
        row |= dict.fromkeys(TREE.columns, 0) | {f"{FIRST}_total-votes": 0}
    write(dataset, "train", rows)
    where = f"{broken} of the {asked} galaxies asked ({broken / asked:.2%})"
    text = f"{PROBLEM} has other votes than the answers that lead to it in {where}"
    assert findings(dataset, tolerance=broken / asked - 1e-4) == [["problem", "tree", text]]
    assert findings(dataset, tolerance=broken / asked + 1e-4) == [["note", "tree", text]]


def test_totals_that_are_not_the_sum_are_a_problem(dataset, findings):
    for split in ("train", "test"):
        total = rows_of(dataset, split)[0][f"{FIRST}_total-votes"]
        spoil(dataset, split, 0, **{f"{FIRST}_total-votes": total + 1})
    text = f"{FIRST}_total-votes is not the sum of its answers (2 times)"
    assert findings(dataset) == [["problem", "totals", text]]


@pytest.mark.parametrize(
    ("by", "level", "text"),
    [
        (0.3, "problem", "fractions are not votes / total (1 times)"),
        (0.02, "note", "votes are fractions rounded to whole votes (1 times)"),
        (0.0005, None, None),
        (float("nan"), "note", "some fractions are NaN or null; mask by the votes (1 times)"),
    ],
)
def test_fractions_are_those_of_the_votes(dataset, findings, by, level, text):
    column = f"{FIRST}_smooth_fraction"
    fraction = rows_of(dataset, "train")[0][column]
    spoil(dataset, "train", 0, **{column: fraction + by})
    assert findings(dataset) == ([[level, "fractions", text]] if level else [])


def test_a_card_that_says_another_number_of_galaxies_is_a_problem(dataset, findings):
    found = {split: len(rows_of(dataset, split)) for split in SPLITS}
    card = (dataset / "README.md").read_text()
    assert f"num_examples: {found['train']}" in card
    (dataset / "README.md").write_text(card.replace(f"num_examples: {found['train']}", "num_examples: 1234", 1))
    text = f"says {found | {'train': 1234}} galaxies, but there are {found}"
    assert findings(dataset) == [["problem", "card", text]]


def test_statistics_that_are_not_those_of_the_data_are_a_problem(dataset, healthy, findings):
    statistics = json.loads((healthy / "statistics.json").read_text())
    statistics["votes"][f"{BAR}_no"] += 1
    statistics["classes"]["kind"]["a"]["train"] -= 1
    (dataset / "statistics.json").write_text(json.dumps(statistics))
    text = "statistics.json differs from the data in votes, classes"
    assert findings(dataset) == [["problem", "statistics", text]]
    assert findings(dataset, config="tiny") == []


@pytest.mark.parametrize("content", ["{", '{"galaxies": {}}', '{"values": {"mass": {}}}'])
def test_statistics_of_something_else_are_a_problem(dataset, findings, content):
    (dataset / "statistics.json").write_text(content)
    assert [finding[:2] for finding in findings(dataset)] == [["problem", "statistics"]]


def without(column):
    return datasets.Features({c: feature for c, feature in Survey.features.items() if c != column})


def test_splits_have_the_same_columns(dataset, findings):
    rewrite(dataset, lambda row: row, without("kind"), ["test"])
    assert findings(dataset) == [["problem", "schema", "split test has other columns than the first split"]]


@pytest.mark.parametrize("column", ["image", "id_str"])
def test_a_column_that_is_not_there_is_a_problem(dataset, findings, column):
    rewrite(dataset, lambda row: row, without(column))
    assert findings(dataset) == [["problem", "schema", f"split {split} has no column {column}"] for split in SPLITS]


def test_a_column_of_names_instead_of_pictures_is_a_problem(dataset, findings):
    named = datasets.Features(Survey.features | {"image": datasets.Value("string")})
    rewrite(dataset, lambda row: row | {"image": row["image"]["path"]}, named)
    assert findings(dataset) == [
        ["problem", "schema", f"split {split}: column image holds Value('string'), not pictures"] for split in SPLITS
    ]


@pytest.mark.parametrize("column", ["image", "kind", f"{BAR}_no"])
def test_a_file_has_the_columns_of_the_card(dataset, findings, column):
    write(dataset, "test", rows_of(dataset, "test"), without(column).arrow_schema)
    assert ["problem", "schema"] in [finding[:2] for finding in findings(dataset)]


def test_half_votes_are_found_where_the_card_speaks_of_whole_ones(dataset, findings):
    halves = datasets.Features(Survey.features | {f"{BAR}_weak": datasets.Value("float64")})
    rows = rows_of(dataset, "test")
    rows[0][f"{BAR}_weak"] += 0.5
    write(dataset, "test", rows, halves.arrow_schema)
    assert "problem" in [level for level, _, _ in findings(dataset)]


def test_a_split_that_is_not_there_is_noted(dataset, findings):
    file_of(dataset, "test").unlink()
    (dataset / "README.md").unlink()
    shutil.rmtree(dataset / "tiny")
    assert findings(dataset) == [["note", "splits", "no split test; there are train, validation"], NO_CARD]


def test_what_is_no_parquet_dataset_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("id_str,image\n1,2\n")
    for name, reason in ((tmp_path, "only datasets of Parquet files"), (tmp_path / "nowhere", ".*nowhere")):
        line = called(monkeypatch, name)
        assert re.fullmatch(rf"error: {name}: cannot be opened \({reason}.*\)", line)


def test_settings_that_cannot_be_are_refused(healthy, monkeypatch):
    assert re.fullmatch("error: --tolerance is a share.*", called(monkeypatch, healthy, "--tolerance", 1.5))
    assert re.fullmatch("error: --threads 0: must be from 1 to 1024", called(monkeypatch, healthy, "--threads", 0))
    assert re.fullmatch("error: .*no-such.* not found.*", called(monkeypatch, healthy, "--dataset-config", "no-such"))
