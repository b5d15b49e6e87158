"""A published folder arrives on the Hub byte for byte, is read from there, and a push that broke off is taken up again.

The scripts and the client libraries run in processes of their own, which ask the fake Hub.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_galaxy.files import only_writer_of
from tests import fake_hub

FOOTER = 65536  # bytes that a reader fetches to find the footer


def files_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def stamps_of(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


def writes(hub):
    return ["commit" if "/commit/" in path else "lfs" for _, path in hub.requests if re.search("/commit/|^/lfs/", path)]


@pytest.fixture(scope="module")
def pushed(hub, run_with_hub, tmp_path_factory):
    """The folder of a small mock survey that was pushed as lab/mock."""
    folder = tmp_path_factory.mktemp("published") / "mock"
    simulate = ("simulate", "--galaxies", 40, "--size", 32, "--num-proc", 1)
    done = run_with_hub("scripts/publish_dataset.py", *simulate, "--out", folder, "--push", "lab/mock")
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/datasets/lab/mock" in done.stdout
    return folder


def test_what_is_on_the_hub_is_the_folder_byte_for_byte(hub, pushed):
    assert files_of(hub.folder("datasets", "lab/mock")) == files_of(pushed)
    assert {"README.md", "statistics.json", "data/gz2/train-00000.parquet"} < files_of(pushed).keys()


def loaded():
    from datasets import get_dataset_config_names, load_dataset

    from hf_galaxy.importing.dataset import open_dataset

    columns = ["id_str", "smooth-or-featured-gz2_smooth"]
    campaign = load_dataset("lab/mock", "gz2")
    stream = load_dataset("lab/mock", streaming=True)
    ours = open_dataset("lab/mock", streaming=True)
    return {
        "configs": get_dataset_config_names("lab/mock"),
        "whole": {
            split: [*zip(*(rows[c] for c in columns), strict=True)] for split, rows in load_dataset("lab/mock").items()
        },
        "stream": {split: [[row[c] for c in columns] for row in rows] for split, rows in stream.items()},
        "ours": {
            split: [*zip(*(rows[:][c].to_pylist() for c in columns), strict=True)] for split, rows in ours.items()
        },
        "campaign": {split: len(rows) for split, rows in campaign.items()},
        "campaign columns": campaign["train"].column_names,
        "picture": next(iter(stream["test"]))["image"].size,
    }


def test_it_is_loaded_from_the_hub_whole_by_campaign_and_as_a_stream(returned_with_hub, pushed):
    answer = returned_with_hub(loaded)
    assert sorted(answer["configs"]) == ["default", "gz2", "gz_decals_dr5", "tiny"]
    assert sum(map(len, answer["whole"].values())) == 40
    assert answer["whole"] == answer["stream"] == answer["ours"]
    on_disk = {
        split: pq.read_metadata(pushed / f"data/gz2/{split}-00000.parquet").num_rows for split in answer["whole"]
    }
    assert answer["campaign"] == on_disk
    assert {c.rsplit("_", 1)[0].rsplit("-", 1)[-1] for c in answer["campaign columns"] if "-" in c} == {"gz2"}
    assert answer["picture"] == [32, 32]


def test_a_push_that_broke_off_goes_on_with_what_is_missing(hub, run_with_hub, catalogue_folder):
    folder, repo = catalogue_folder / "rings", hub.folder("datasets", "lab/rings")
    catalogue = (
        "scripts/publish_dataset.py", "catalogue", "--images", catalogue_folder / "pictures", "--catalogue",
        catalogue_folder / "votes.csv", "--columns", catalogue_folder / "map.json", "--tree", "gz_rings", "--num-proc", 1,
        "--out", folder, "--push", "lab/rings",
    )  # fmt: skip

    # The second large file is refused: one line, nothing is visible, and the dataset is whole on the disk
    hub.fail(after=1)
    done = run_with_hub(*catalogue)
    *bar, line = done.stderr.splitlines()
    assert (done.returncode, [part for part in bar if part and "galaxies/s]" not in part]) == (1, []), done.stderr
    assert re.fullmatch(
        r"error: --push lab/rings: 403 Forbidden: .*\(the dataset is complete in .*rings; the same command pushes what is missing\)",
        line,
    )
    assert files_of(repo) == {}
    published, stamps = files_of(folder), stamps_of(folder)
    assert {"README.md", "statistics.json"} < published.keys()
    large = {content for path, content in published.items() if hub.is_lfs(path, len(content))}

    # The same command sends the others; now the card is refused, which comes last
    hub.requests.clear()
    hub.fail(after=len(large))
    done = run_with_hub(*catalogue)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"{folder} is published already" in done.stdout
    assert writes(hub) == ["lfs"] * (len(large) - 1) + ["commit"] * 2
    assert files_of(repo).keys() == published.keys() - {"README.md"}

    hub.requests.clear()
    hub.heal()
    done = run_with_hub(*catalogue)
    assert (done.returncode, writes(hub)) == (0, ["commit"]), done.stderr
    assert files_of(repo) == files_of(folder) == published
    assert stamps_of(folder) == stamps, "nothing was published again"


def test_a_folder_that_another_process_writes_is_not_pushed(hub, run_with_hub, pushed):
    before, simulate = files_of(pushed), ("simulate", "--galaxies", 40, "--size", 32, "--num-proc", 1)
    with only_writer_of(pushed):
        done = run_with_hub("scripts/publish_dataset.py", *simulate, "--out", pushed, "--push", "lab/renamed")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"{pushed}: another command writes it at this moment" in done.stderr
    assert files_of(pushed) == before
    assert not hub.folder("datasets", "lab/renamed").exists()


def refusals(folder):
    from huggingface_hub import constants

    from hf_galaxy.errors import BadInput
    from hf_galaxy.publishing import hub

    def refusal(repo):
        try:
            return hub.push(Path(folder), repo)
        except BadInput as error:
            return str(error)
        except Exception as error:
            return f"a traceback that ends with {error!r}"

    refused = [refusal("lab/mock"), refusal("lab/new"), refusal("lab/mock/2")]
    constants.ENDPOINT = "http://127.0.0.1:9"
    return [*refused, refusal("lab/mock")]


@pytest.fixture(scope="module")
def refused(hub, returned_with_hub, hub_environment, pushed):
    """How pushes end that have no token, and at last no Hub."""
    before = files_of(hub.root / "datasets")
    without = {name: value for name, value in hub_environment.items() if name != "HF_TOKEN"}
    lines = returned_with_hub(refusals, pushed, environment=without)
    assert files_of(hub.root / "datasets") == before
    return lines


def test_without_a_token_or_with_a_wrong_name_a_push_is_refused_in_one_line(refused):
    existing, new, wrong, _ = refused
    assert "--push lab/mock: Client error '401 Unauthorized'" in existing
    assert "--push lab/new: Client error '401 Unauthorized'" in new
    assert "--push lab/mock/2: Repo id must be in the form" in wrong
    assert not any("\n" in line for line in refused)


def test_a_hub_that_cannot_be_reached_is_one_line(refused):
    assert re.fullmatch(
        r"--push lab/mock: .*refused.*\(the dataset is complete in .*mock; the same command pushes what is missing\)",
        refused[-1],
    )


def pushed_twice(folder):
    from hf_galaxy.publishing import hub

    folder = Path(folder)
    hub.push(folder, "lab/twice")
    (folder / "data/train-00001.parquet").unlink()
    hub.push(folder, "lab/twice")


def test_what_is_published_again_with_fewer_files_leaves_none_of_the_old_ones(hub, returned_with_hub, tmp_path):
    """Else load_dataset("lab/twice") reads galaxies that are not in the dataset any more."""
    for name in ("README.md", "data/train-00000.parquet", "data/train-00001.parquet"):
        (tmp_path / "twice" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "twice" / name).write_text(name)
    returned_with_hub(pushed_twice, tmp_path / "twice")
    assert files_of(hub.folder("datasets", "lab/twice")) == files_of(tmp_path / "twice")


@pytest.fixture
def sent(monkeypatch):
    """Bytes that the hub has sent of each file."""
    sent, reply = Counter(), fake_hub._Handler.reply

    def metered(handler, body=b"", status=200, **headers):
        if handler.command == "GET" and status in (200, 206) and isinstance(body, bytes):
            sent[handler.path.rsplit("/", 1)[-1]] += len(body)
        return reply(handler, body, status, **headers)

    monkeypatch.setattr(fake_hub._Handler, "reply", metered)
    return sent


@pytest.fixture(scope="module")
def large_pictures(hub):
    """A dataset, lab/large, of 24 incompressible pictures of 500 kB a split, two in each row group."""
    folder, rng = hub.folder("datasets", "lab/large") / "data", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [
            {
                "id_str": f"{split}{i}",
                "ring_yes": i,
                "ring_no": 1,
                "image": {"bytes": rng.bytes(500_000), "path": "x.jpg"},
            }
            for i in range(24)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet", row_group_size=2, compression="none")


def streamed():
    from hf_galaxy import load_tree
    from hf_galaxy.importing.dataset import open_dataset
    from hf_galaxy.training.targets.votes import vote_batches

    opened = open_dataset("lab/large", streaming=True)
    picture = opened["train"][[5]]["image"][0].as_py()["bytes"]
    (votes,) = vote_batches(opened["validation"], load_tree("gz_rings"))
    return len(picture), votes[:, 0].tolist()


@pytest.fixture
def fetched(returned_with_hub, large_pictures, sent):
    """Bytes fetched of each file for one picture of train, and all votes of validation."""
    assert returned_with_hub(streamed) == [500_000, list(range(24))]
    return sent


def test_a_stream_fetches_the_footers_and_what_it_is_asked_for(fetched):
    assert fetched["test.parquet"] <= FOOTER, "nothing else is known of test"
    assert fetched["train.parquet"] < 2 * 500_000 + 3 * FOOTER, "a row group of two pictures"
    assert fetched["validation.parquet"] < 3 * FOOTER, "no picture"


@pytest.fixture
def of_others(hub):
    """Datasets of other people: lab/shapes of Parquet files without names, and lab/folder of class folders."""
    from tests.galaxies import jpeg_bytes

    shapes, folder = (hub.folder("datasets", f"lab/{name}") for name in ("shapes", "folder"))
    shapes.mkdir(parents=True)
    pictures = [{"bytes": jpeg_bytes(i), "path": None} for i in range(3)]
    pq.write_table(pa.table({"picture": pictures, "shape": ["a", "b", "a"]}), shapes / "train.parquet")
    for i in range(4):
        file = folder / "train" / ("spiral" if i % 2 else "round") / f"g{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg_bytes(i))


def imported():
    from hf_galaxy.errors import BadInput
    from hf_galaxy.importing.dataset import open_dataset

    counts = {}
    for name in ("lab/shapes", "lab/folder"):
        for streaming in (True, None)[name == "lab/folder" :]:  # what the user asks for, and what predictions do
            try:
                opened = open_dataset(name, streaming=streaming)
                counts[name] = sorted({*next(iter(opened.values())).column_names}), sum(map(len, opened.values()))
            except BadInput as error:
                counts[f"{name} {streaming}"] = str(error)
    return counts


def test_datasets_of_other_columns_are_downloaded_and_imported_but_not_streamed(returned_with_hub, of_others):
    counts = returned_with_hub(imported)
    assert counts["lab/shapes"] == [["id_str", "image", "shape"], 3]
    assert counts["lab/folder"] == [["id_str", "image", "label"], 4]
    assert "so it cannot be streamed; leave out --streaming" in counts["lab/shapes True"]


if __name__ == "__main__":
    print("\n" + json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
