"""Catalogues as surveys publish them come out vote by vote as they went in: read here a second time, without our reader.

What stands in which official column is written down here once more, by the numbers of tasks and answers, so that a wrong
line in dataset_cards/*/columns.json shows.
"""

import csv
import gzip
import io
import json
import re
import runpy
import shutil
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from hf_galaxy import load_tree
from hf_galaxy.data.picture_files import Pictures
from hf_galaxy.importing.catalogues import Catalogue
from hf_galaxy.importing.column_map import ColumnMap
from tests.conftest import ROOT
from tests.galaxies import jpeg_bytes
from tests.galaxies import rows_of as rows_of_source

# Galaxy Zoo 2: task -> question, its answers in the order of their numbers, and the answers (task, place) that lead to it.
GZ2 = {
    1: ("smooth-or-featured", "smooth featured-or-disk artifact", []),
    2: ("disk-edge-on", "yes no", [(1, 1)]),
    3: ("bar", "yes no", [(2, 1)]),
    4: ("has-spiral-arms", "yes no", [(2, 1)]),
    5: ("bulge-size", "no just-noticeable obvious dominant", [(2, 1)]),
    6: ("something-odd", "yes no", [(1, 0), (1, 1)]),
    7: ("how-rounded", "round in-between cigar", [(1, 0)]),
    8: ("odd-feature", "ring lens-or-arc disturbed irregular other merger dust-lane", [(6, 0)]),
    9: ("bulge-shape", "round boxy no-bulge", [(2, 0)]),
    10: ("spiral-winding", "tight medium loose", [(4, 0)]),
    11: ("spiral-arm-count", "1 2 3 4 more-than-4 cant-tell", [(4, 0)]),
}
OF_TASK = {
    task: [f"{question}-gz2_{answer}" for answer in answers.split()] for task, (question, answers, _) in GZ2.items()
}
IN_TREE = set(OF_TASK) - {8}
WEIGHTED = "weighted_fraction"

# JWST CEERS: task -> question; answers have other names than ours.
CEERS = {
    0: "smooth-or-featured", 1: "how-rounded", 2: "disk-edge-on", 3: "edge-on-bulge", 4: "bar", 5: "has-spiral-arms",
    6: "spiral-winding", 7: "spiral-arm-count", 8: "bulge-size", 11: "merging", 12: "clumps", 19: "problem",
}  # fmt: skip
CEERS_ANSWERS = {
    "features_or_disk": "featured-or-disk", "star_artifact_or_bad_zoom": "star-artifact-zoom", "cigarshaped": "cigar-shaped",
    "completely_round": "round", "yes_edge_on_disk": "yes", "no_something_else": "no", "no_bulge": "none", "no_bar": "no",
    "strong_bar": "strong", "weak_bar": "weak", "merging": "merger", "nonstar_artifact": "artifact",
    "bad_image_zoom": "bad-zoom",
}  # fmt: skip


def publish(out, *arguments):
    """scripts/publish_dataset.py in this process, to save the start of another; the line with which it ended, if it refused."""
    with pytest.MonkeyPatch.context() as patch:
        words = ["publish_dataset", "catalogue", *arguments, "--num-proc", 1, "--out", out]
        patch.setattr(sys, "argv", list(map(str, words)))
        try:
            runpy.run_path(str(ROOT / "scripts/publish_dataset.py"), run_name="__main__")
        except SystemExit as stopped:
            return stopped.code


def of_card(name):
    return "--columns", ROOT / f"dataset_cards/{name}/columns.json", "--card", ROOT / f"dataset_cards/{name}/card.md"


def rows_of(folder, config="data"):
    """Name -> row as it stands in the Parquet files."""
    files = sorted((folder / config).glob("*.parquet"))
    return {row["id_str"]: row for file in files for row in pq.read_table(file).to_pylist()}


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def head(source, out, rows):
    """A catalogue with the first rows of another."""
    out.write_text("".join(source.read_text().splitlines(keepends=True)[: rows + 1]))
    return out


def hart(line, kind):
    """Our column -> what Hart et al. 2016 say."""
    for task, ours in OF_TASK.items():
        official = [c for c in line if re.fullmatch(rf"t{task:02d}_.*_a\d\d_.*_{kind}", c)]
        official.sort(key=lambda c: int(re.search(r"_a(\d\d)_", c)[1]))
        for mine, theirs in zip(ours, official, strict=True):
            yield mine, line[theirs]


def size_of(row):
    return Image.open(io.BytesIO(row["image"]["bytes"])).size


def assert_votes_walk(row, tasks=IN_TREE):
    for task in tasks:
        if parents := GZ2[task][2]:
            leading = sum(row[OF_TASK[parent][place]] for parent, place in parents)
            assert sum(row[c] for c in OF_TASK[task]) == leading, GZ2[task][0]


@pytest.fixture(scope="module")
def layouts(shared_data):
    return shared_data / "official_layouts"


def test_galaxy_zoo_2_with_its_filename_mapping(layouts, tmp_path):
    here, out = layouts / "galaxy_zoo_2", tmp_path / "gz2"
    assert not publish(
        out, "--images", here / "images", "--catalogue", here / "gz2_hart16.csv", "--tree", "gz2", *of_card("gz2")
    )
    rows, lines = rows_of(out), lines_of(here / "gz2_hart16.csv")
    asset = {line["objid"]: line["asset_id"] for line in lines_of(here / "gz2_filename_mapping.csv")}
    assert len(rows) == len(lines) == 3
    for line in lines:
        row, counts = rows[line["dr7objid"]], {column: int(n) for column, n in hart(line, "count")}
        assert len(counts) == 30 + 7
        assert {column: row[column] for column in counts} == counts
        assert (row["ra"], row["dec"]) == (float(line["ra"]), float(line["dec"]))
        assert (row["gz2_class"], row["sample"]) == (line["gz2_class"], line["sample"])
        assert row["total_classifications"] == int(line["total_classifications"])
        assert row["image"]["bytes"] == (here / f"images/{asset[line['dr7objid']]}.jpg").read_bytes()
    loaded = load_dataset(str(out))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 2, "test": 1}
    for row in loaded["train"]:
        assert {c: row[c] for c in row if c != "image"} == {
            c: v for c, v in rows[row["id_str"]].items() if c != "image"
        }
        assert row["image"].size == (424, 424)
    assert {loaded["train"].features[c].dtype for task in OF_TASK for c in OF_TASK[task]} == {"int32"}


def joint(line, task, place):
    return float(line[f"Class{task}.{place + 1}"])


def assert_conditional(row, line, tasks=OF_TASK):
    """Published joint fractions = ours x the joint fraction of the answers that lead to the question."""
    for task in tasks:
        # Question 6 is asked of nearly everyone; in the challenge its fractions add up to 1.
        parents = [] if task == 6 else GZ2[task][2]
        way = sum(joint(line, *parent) for parent in parents) if parents else 1
        for place, column in enumerate(OF_TASK[task]):
            mine = row[f"{column}_fraction"]
            if mine is None:
                assert sum(joint(line, task, p) for p in range(len(OF_TASK[task]))) == 0
            else:
                assert mine * way == pytest.approx(joint(line, task, place), abs=2e-6), column


def test_the_kaggle_challenge_has_conditional_fractions_and_no_votes(layouts, tmp_path):
    here, out = layouts / "galaxy_zoo_challenge", tmp_path / "kaggle"
    catalogue = here / "training_solutions_rev1.csv"
    pictures = here / "images_training_rev1"
    assert not publish(out, "--images", pictures, "--catalogue", catalogue, "--tree", "gz2", *of_card("gz2_kaggle"))
    rows, lines = rows_of(out), lines_of(catalogue)
    assert len(rows) == len(lines) == 3
    for line in lines:
        row = rows[line["GalaxyID"]]
        assert row.keys() == {"id_str", "image"} | {f"{c}_fraction" for task in OF_TASK for c in OF_TASK[task]}
        assert len(row) == 2 + 37
        assert_conditional(row, line)
        assert row["image"]["bytes"] == (pictures / f"{line['GalaxyID']}.jpg").read_bytes()
    assert "there are no vote counts here" in (out / "README.md").read_text()


def assert_near_the_fractions(row, volunteers, tasks=IN_TREE):
    """Each answer is within a vote for each level of the tree of fraction x volunteers."""
    expected, level = {}, {}
    for task in sorted(tasks):  # a question has a greater number than those that lead to it
        parents = [OF_TASK[parent][place] for parent, place in GZ2[task][2]]
        way = sum(expected[c] for c in parents) if parents else volunteers
        for column in OF_TASK[task]:
            expected[column] = way * (row[f"{column}_fraction"] or 0)
            level[column] = 1 + max((level[c] for c in parents), default=0)
    for column, votes in expected.items():
        assert abs(row[column] - votes) <= level[column] + 1e-3, column


def test_the_kaggle_challenge_with_assumed_volunteers_walks_the_tree(layouts, tmp_path):
    here, out = layouts / "galaxy_zoo_challenge", tmp_path / "kaggle"
    assert not publish(
        out, "--images", here / "images_training_rev1", "--catalogue", here / "training_solutions_rev1.csv", "--tree", "gz2",
        "--volunteers", 44, *of_card("gz2_kaggle"),
    )  # fmt: skip
    for line in lines_of(here / "training_solutions_rev1.csv"):
        row = rows_of(out)[line["GalaxyID"]]
        assert_conditional(row, line)
        assert sum(row[c] for c in OF_TASK[1]) == 44
        assert_votes_walk(row)
        assert_near_the_fractions(row, 44)
        assert not set(OF_TASK[8]) & row.keys(), "no tree asks for the odd feature"
    card = (out / "README.md").read_text()
    assert "**Nobody counted these votes**: 44 volunteers were assumed" in card


def test_seventeen_of_the_challenges_fractions_leave_out_the_other_questions(shared_data, tmp_path):
    here, out, questions = shared_data / "gz2_votes", tmp_path / "part", [1, 2, 6, 7]
    catalogue = head(here / "fractions_17_of_37.csv", tmp_path / "fractions.csv", 30)
    assert not publish(
        out, "--images", here / "images.zip", "--catalogue", catalogue, "--tree", "gz2", "--volunteers", 44,
        *of_card("gz2_kaggle"),
    )  # fmt: skip
    rows = rows_of(out)
    assert len(rows) == 30
    with zipfile.ZipFile(here / "images.zip") as archive:
        for line in lines_of(catalogue):
            row = rows[line["GalaxyID"]]
            fractions = {f"{c}_fraction" for task in [*questions, 8] for c in OF_TASK[task]}
            assert row.keys() == {"id_str", "image"} | fractions | {c for task in questions for c in OF_TASK[task]}
            assert_conditional(row, line, [*questions, 8])
            assert_votes_walk(row, questions)
            assert_near_the_fractions(row, 44, questions)
            assert row["image"]["bytes"] == archive.read(f"{line['GalaxyID']}.jpg")


DECALS = [("dr12", "1_and_2", ()), ("dr5", "5", ("--allow-inconsistent-votes",))]


@pytest.mark.parametrize(("campaign", "file", "allow"), DECALS)
def test_galaxy_zoo_decals(layouts, tmp_path, campaign, file, allow):
    here, out = layouts / "galaxy_zoo_decals", tmp_path / campaign
    catalogue, parts = here / f"gz_decals_volunteers_{file}.csv", sorted(here.glob("*_png_part*"))
    assert not publish(
        out, "--images", *parts, "--catalogue", catalogue, "--tree", f"gz_decals_{campaign}", *allow,
        *of_card(f"gz_decals_{campaign}"),
    )  # fmt: skip
    rows, lines = rows_of(out), lines_of(catalogue)
    assert len(rows) == len(lines) == 6
    for line in lines:
        row = rows[line["iauname"]]
        official = [c for c in line if f"{c}_fraction" in line]
        counts = {c.replace("_", f"-{campaign}_", 1): int(line[c]) for c in official}
        assert counts.keys() == set(load_tree(f"gz_decals_{campaign}").columns)
        assert {column: row[column] for column in counts} == counts
        assert (row["ra"], row["dec"]) == (float(line["ra"]), float(line["dec"]))
        assert row["redshift"] == (float(np.float32(line["redshift"])) if line["redshift"] else None)
        (picture,) = here.glob(f"*/{line['iauname'][:4]}/{line['iauname']}.png")
        assert row["image"]["bytes"] == picture.read_bytes()
    broken = {"dr12": 0, "dr5": 2}[campaign]
    inconsistent = json.loads((out / "statistics.json").read_text())["inconsistent"]
    assert inconsistent == {"galaxies": broken, "questions": {"merging-dr5": broken} if broken else {}}


def test_decals_dr5_breaks_its_tree_and_is_refused_unless_that_is_allowed(layouts, tmp_path):
    here = layouts / "galaxy_zoo_decals"
    line = publish(
        tmp_path / "dr5", "--images", *sorted(here.glob("*_png_part*")), "--catalogue", here / "gz_decals_volunteers_5.csv",
        "--tree", "gz_decals_dr5", *of_card("gz_decals_dr5"),
    )  # fmt: skip
    assert re.fullmatch(
        r"error: .*gz_decals_volunteers_5\.csv, row 3 \(id_str J005650\.84-010137\.4\): merging-dr5 has 32 votes, but the "
        r"answers that lead to it have 35; correct --columns, or add --allow-inconsistent-votes and let the card say how often",
        line,
    )
    assert not list(tmp_path.iterdir())


def test_galaxy_zoo_2_as_weighted_fractions(shared_data, tmp_path):
    here, out = shared_data / "gz2_hart", tmp_path / "hart"
    catalogue = head(here / "votes.csv", tmp_path / "votes.csv", 40)
    assert not publish(
        out, "--images", here / "images.zip", "--catalogue", catalogue, "--tree", "gz2", *of_card("gz2_hart")
    )
    rows = rows_of(out)
    assert len(rows) == 40
    for line in lines_of(catalogue):
        row, published = rows[line["objid"]], {c: float(f or 0) for c, f in hart(line, WEIGHTED)}
        for task, columns in OF_TASK.items():
            total = sum(published[c] for c in columns)
            for column in columns:
                mine = row[f"{column}_fraction"]
                # They are printed with three digits, and add up to 1 with an error of as much.
                assert mine == pytest.approx(published[column], abs=2e-3) if total else mine is None, (line, task)
        assert sum(row[c] for c in OF_TASK[1]) == row["total_classifications"] == float(line["total_classifications"])
        assert_votes_walk(row)
        assert_near_the_fractions(row, row["total_classifications"])
        assert (row["gz2_class"], row["kaggle_GalaxyID"]) == (line["gz2_class"], line["kaggle_GalaxyID"])


def test_jwst_ceers_beside_its_pictures_at_their_own_size(shared_data, tmp_path):
    here, out = shared_data / "ceers", tmp_path / "ceers"
    catalogue = head(here / "votes.csv", tmp_path / "votes.csv", 30)
    assert not publish(
        out, "--images", here, "--catalogue", catalogue, "--tree", "gz_jwst_ceers", *of_card("gz_jwst_ceers"), "--size", 224,
        "--native",
    )  # fmt: skip
    small, native, lines = rows_of(out), rows_of(out, "native"), lines_of(catalogue)
    assert len(small) == len(native) == len(lines) == 30
    for line in lines:
        counts = {}
        for official, votes in line.items():
            if (found := re.fullmatch(r"t(\d+)_.*__(.*)", official)) and found[2] != "total-votes":
                answer = CEERS_ANSWERS.get(found[2], found[2].replace("_", "-"))
                counts[f"{CEERS[int(found[1])]}-jwst_{answer}"] = int(votes)
        assert len(counts) == 39
        row, whole = small[line["id_str"]], native[line["id_str"]]
        assert {column: row[column] for column in counts} == counts
        assert {column: whole[column] for column in counts} == counts
        assert whole["image"]["bytes"] == (here / line["file"]).read_bytes()
        assert size_of(row) == (224, 224)
        assert row["image"]["bytes"].startswith(b"\xff\xd8"), "JPEG"
    loaded = load_dataset(str(out), "native", split="train")
    assert loaded[0]["image"].size == (424, 424)
    assert "longer than 224 pixels were reduced to that" in (out / "README.md").read_text()


def test_whole_catalogues_walk_the_tree_as_far_as_they_say_anything(shared_data):
    """Counts do everywhere; votes made of fractions, but where nothing is said of a question that some must have been asked."""
    inconsistent = {}
    for name, tree, pictures, galaxies in (
        ("gz2_hart", "gz2", "gz2_hart/images.zip", 1000),
        ("gz_jwst_ceers", "gz_jwst_ceers", "ceers", 4119),
    ):
        columns = ColumnMap.load(ROOT / f"dataset_cards/{name}/columns.json")
        folder, pictures = shared_data / pictures.partition("/")[0], Pictures([shared_data / pictures])
        catalogue = Catalogue.read(folder / "votes.csv", pictures, columns, load_tree(tree))
        assert len(catalogue) == galaxies
        inconsistent[name] = list(catalogue.inconsistencies())
    assert not inconsistent["gz_jwst_ceers"]
    assert len(inconsistent["gz2_hart"]) == 15
    assert all("has 0 votes, but the answers that lead to it have 1" in line for line in inconsistent["gz2_hart"])


# Layouts that need no real galaxies.


@pytest.fixture
def small(catalogue_folder):
    """Arguments that publish the five galaxies of the folder."""
    here = catalogue_folder
    return here, ("--images", here / "pictures", "--columns", here / "map.json", "--tree", "gz_rings")


def catalogue_rows(folder, catalogue, images="pictures"):
    columns = ColumnMap.load(folder / "map.json")
    found = Catalogue.read(folder / catalogue, Pictures([folder / images]), columns, load_tree("gz_rings"))
    return rows_of_source(found)


def test_gzipped_csv_and_parquet_are_as_good_as_csv(catalogue_folder):
    text = (catalogue_folder / "votes.csv").read_bytes()
    (catalogue_folder / "votes.csv.gz").write_bytes(gzip.compress(text))
    pd.read_csv(catalogue_folder / "votes.csv").to_parquet(catalogue_folder / "votes.parquet")
    expected = catalogue_rows(catalogue_folder, "votes.csv")
    assert len(expected) == 5
    assert catalogue_rows(catalogue_folder, "votes.csv.gz") == expected
    assert catalogue_rows(catalogue_folder, "votes.parquet") == expected


@pytest.mark.parametrize("top", ["survey/", "survey/images/", ""])
def test_a_folder_at_the_top_of_a_zip_may_be_left_out_of_names(catalogue_folder, top):
    with zipfile.ZipFile(catalogue_folder / "pictures.zip", "w") as archive:
        for picture in sorted((catalogue_folder / "pictures").iterdir()):
            archive.write(picture, f"{top}{picture.name}")
    if top == "survey/images/":
        columns = json.loads((catalogue_folder / "map.json").read_text())
        (catalogue_folder / "map.json").write_text(json.dumps(columns | {"image": "images/{file}"}))
    rows = catalogue_rows(catalogue_folder, "votes.csv", "pictures.zip")
    assert {row["id_str"]: row["image"]["bytes"] for row in rows} == {
        f"g{i}": (catalogue_folder / f"pictures/{i}.jpg").read_bytes() for i in range(5)
    }


def test_a_second_file_is_joined_by_a_key_that_is_unique(catalogue_folder):
    here = catalogue_folder
    votes = pd.read_csv(here / "votes.csv").assign(epoch=1)
    files = pd.concat(
        [votes[["name", "epoch", "file"]], pd.DataFrame({"name": ["g1"], "epoch": [2], "file": ["4.jpg"]})]
    )
    votes.drop(columns="file").to_csv(here / "votes.csv", index=False)
    files.to_csv(here / "files.csv", index=False)
    columns = json.loads((here / "map.json").read_text())
    join = {"file": "files.csv", "on": {"name": "name"}}
    (here / "map.json").write_text(json.dumps(columns | {"join": join}))
    arguments = ("--images", here / "pictures", "--catalogue", here / "votes.csv", "--columns", here / "map.json")
    line = publish(here / "out", *arguments, "--tree", "gz_rings")
    assert re.fullmatch(
        r"error: .*files\.csv: \{'name': 'g1'\} is there more than once; name a further column in join\.on", line
    )
    assert not (here / "out").exists()
    (here / "map.json").write_text(json.dumps(columns | {"join": join | {"on": {"name": "name", "epoch": "epoch"}}}))
    rows = {row["id_str"]: row["image"]["bytes"] for row in catalogue_rows(here, "votes.csv")}
    assert rows["g1"] == (here / "pictures/1.jpg").read_bytes()


def test_rows_without_a_picture_are_left_out_and_counted_on_the_card(small):
    here, arguments = small
    for i in (1, 3):
        (here / f"pictures/{i}.jpg").unlink()
    arguments = (*arguments, "--catalogue", here / "votes.csv")
    line = publish(here / "out", *arguments)
    assert "row 2, column file: '1.jpg' is not a picture" in line
    assert "(and 1 more such rows)" in line
    assert not publish(here / "out", *arguments, "--skip-missing")
    rows = rows_of(here / "out")
    assert {name: (row["ring_yes"], row["ring_no"]) for name, row in rows.items()} == {
        "g0": (0, 10),
        "g2": (2, 8),
        "g4": (4, 6),
    }
    assert "2 of the catalogue's 5 rows have no picture and are left out: " in (here / "out/README.md").read_text()


def test_of_galaxies_at_one_place_the_one_with_most_votes_is_kept(small):
    here, arguments = small
    # 10 and 15 arcsec apart, the latter across 0 h; the last has fewer votes than its twin.
    sky = {"ra": [10.0, 10.0, 359.999, 0.003, 50.0], "dec": [0, 10 / 3600, 0, 0, 0], "n_none": [5, 9, 30, 2, 1]}
    pd.read_csv(here / "votes.csv").assign(**sky).to_csv(here / "sky.csv", index=False)
    columns = json.loads((here / "map.json").read_text())
    columns["metadata"] |= {c: {"column": c, "dtype": "float64"} for c in ("ra", "dec")}
    (here / "map.json").write_text(json.dumps(columns))
    arguments = (*arguments, "--catalogue", here / "sky.csv")
    assert not publish(here / "all", *arguments)
    splits = {n: f.name for f in (here / "all/data").iterdir() for n in pq.read_table(f)["id_str"].to_pylist()}
    assert len(splits) == 5
    assert splits["g0"] == splits["g1"]
    assert splits["g2"] == splits["g3"]
    assert not publish(here / "one", *arguments, "--drop-duplicates")
    assert rows_of(here / "one").keys() == {"g1", "g2", "g4"}
    card = (here / "one/README.md").read_text()
    assert "4 galaxies are within 20 arcsec of another or have its name, in 2 groups" in card
    assert "2 that have a neighbour with more votes are left out" in card


def test_fits_files_become_pictures_and_the_card_says_how(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    (tmp_path / "fits").mkdir()
    values = np.linspace(-1, 5, 900, dtype=np.float32).reshape(30, 30)  # the first row, at the bottom, is the darkest
    bands = np.stack([values, values.T, values[::-1]])
    for name, data in (("a", values), ("b", bands), ("c", values.T.copy())):
        fits.PrimaryHDU(data).writeto(tmp_path / f"fits/{name}.fits")
    (tmp_path / "list.csv").write_text("id_str,image\n" + "".join(f"{n},{n}.fits\n" for n in "abc"))
    arguments = ("--images", tmp_path / "fits", "--catalogue", tmp_path / "list.csv")
    assert not publish(tmp_path / "out", *arguments, "--stretch", "sqrt", "--low", 4, "--high", 96)
    rows = rows_of(tmp_path / "out")
    a, b, c = (Image.open(io.BytesIO(rows[name]["image"]["bytes"])) for name in "abc")
    assert [(p.mode, p.format, p.size) for p in (a, b, c)] == [(m, "PNG", (30, 30)) for m in ("L", "RGB", "L")]
    dark, bright = 0, 255  # 4 % are more than a row
    assert (a.getpixel((29, 0)), a.getpixel((0, 29))) == (bright, dark)
    assert (c.getpixel((29, 0)), c.getpixel((0, 29))) == (bright, dark)
    assert a.getpixel((0, 15)) == pytest.approx(a.getpixel((29, 15)), abs=10)
    assert c.getpixel((15, 0)) == pytest.approx(c.getpixel((15, 29)), abs=10)
    red, green, blue = np.moveaxis(np.asarray(b), -1, 0)
    assert (set(blue[0]), set(blue[-1])) == ({bright}, {dark})
    assert (set(red[0]), set(red[-1])) == ({dark}, {bright})
    assert (set(green[:, 0]), set(green[:, -1])) == ({dark}, {bright})
    card = (tmp_path / "out/README.md").read_text()
    assert "by the sqrt stretch between percentiles 4 (black) and 96 (white) of each file's finite values" in card
    assert "the third band is red, the second green and the first blue" in card


def test_numbers_to_predict_may_be_missing(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_bytes(i))
    masses = ["9.5", "", "10.25", "11", "10.25"]
    (tmp_path / "masses.csv").write_text("n,logm\n" + "".join(f"{i},{mass}\n" for i, mass in enumerate(masses)))
    (tmp_path / "map.json").write_text(json.dumps({"id_str": "n", "image": "{n}.jpg", "values": {"mass": "logm"}}))
    out = tmp_path / "out"
    assert not publish(
        out, "--images", tmp_path, "--catalogue", tmp_path / "masses.csv", "--columns", tmp_path / "map.json"
    )
    assert {pq.read_schema(file).field("mass").type for file in (out / "data").iterdir()} == {pa.float32()}
    assert {name: row["mass"] for name, row in rows_of(out).items()} == {
        str(i): float(mass) if mass else None for i, mass in enumerate(masses)
    }
    known = [9.5, 10.25, 11, 10.25]
    assert json.loads((out / "statistics.json").read_text())["values"] == {
        "mass": {
            "galaxies": 4, "missing": 1, "mean": np.mean(known), "standard_deviation": pytest.approx(np.std(known)),
            "smallest": 9.5, "largest": 11,
        }
    }  # fmt: skip
    assert "| `mass` | 4 | 1 | 10.25 | 0.5303 | 9.5 | 11 |" in (out / "README.md").read_text()
    shutil.rmtree(out)
    (tmp_path / "masses.csv").write_text("n,logm\n0,heavy\n")
    line = publish(
        out, "--images", tmp_path, "--catalogue", tmp_path / "masses.csv", "--columns", tmp_path / "map.json"
    )
    assert "row 1, column logm: 'heavy' is not a number of type float32" in line
