"""What has changed by a byte, or is gone, is named with its file: no command learns from it, or goes on with it, as if it were well."""

import shutil
import signal
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.jobs import JOBS, TRAINING
from tests.faults.points import signal_at_file
from tests.faults.processes import run


def flip(file, where=0.5):
    """Change a bit of a file."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * where)] ^= 0x10
    file.unlink()  # others may have linked it
    file.write_bytes(content)


def state_with(materials, name, pattern, tmp_path):
    """The place of a job that was killed when it had last made a file, but not finished."""
    states = sorted(path for path in materials.undisturbed(name).states.iterdir() if path.is_dir())
    state = [path for path in states if list(path.glob(pattern)) and not list(path.glob("out/README.md"))][-1]
    return shutil.copytree(state, tmp_path / "place", symlinks=True)


def refused(ended, *texts):
    assert ended.status == 1, ended.said
    assert "Traceback" not in ended.err, ended.said
    for text in texts:
        assert text in ended.last, ended.said


def test_a_damaged_checkpoint_is_named_and_without_it_the_run_goes_on(materials, tmp_path):
    place = state_with(materials, "pretrain", "out/checkpoint-*.pt", tmp_path)
    checkpoint = max(place.glob("out/checkpoint-*.pt"))
    flip(checkpoint)
    refused(
        materials.run(JOBS["pretrain"], place),
        str(checkpoint.relative_to(place)),
        "remove it to resume from the one before",
    )
    checkpoint.unlink()
    assert (reason := materials.completes("pretrain", place)) is None, reason


def test_damaged_weights_of_a_run_are_named(materials, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(materials.folder / "run", place / "run")
    flip(place / "run/model.safetensors")
    words = ["embed", "--model", "run", "--dataset", materials.folder / "data", "--workers", 0, "--cpu", "--out", "out"]
    refused(run(place, words), "run/model.safetensors: is not as the run has written it")


@pytest.fixture
def with_data(materials, tmp_path):
    """A place with a dataset of its own, and its cache."""
    place = tmp_path / "place"
    (place / "cache").mkdir(parents=True)
    shutil.copytree(materials.folder / "data", place / "data")
    return place


@pytest.mark.parametrize("options", [(), ("--streaming",)])
def test_a_damaged_file_of_a_dataset_is_named(options, materials, with_data):
    file = with_data / "data/data/gz2/train-00000.parquet"
    flip(file)
    words = [
        "evaluate",
        "--run",
        materials.folder / "run",
        "--dataset",
        "data",
        "--split",
        "train",
        "--workers",
        0,
        "--cpu",
    ]
    refused(run(with_data, [*words, *options]), str(file), "is damaged; copy or publish it again")


def other_votes(file):
    """Change a dataset in a way that no checksum shows."""
    table = pq.read_table(file)
    column = "smooth-or-featured-gz2_smooth"
    more = pa.array([value + 7 for value in table[column].to_pylist()], table[column].type)
    pq.write_table(table.set_column(table.column_names.index(column), column, more), file)


def gone(file):
    file.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [(other_votes, "another content of --dataset than now"), (gone, "another content of --dataset than now")],
)
def test_a_run_does_not_go_on_with_other_data(change, said, materials, with_data):
    words = [
        "pretrain",
        "--dataset",
        "data",
        *TRAINING[2:],
        "--backbone",
        "test_convnext",
        "--epochs",
        40,
        "--out",
        "out",
    ]
    run(with_data, words, partial(signal_at_file, with_data, "checkpoint-000000008.pt", signal.SIGKILL))
    change(with_data / "data/data/gz2/train-00000.parquet")
    refused(run(with_data, words), said)


def test_a_damaged_part_of_predictions_is_made_again(materials, tmp_path):
    place = state_with(materials, "predict", ".out.partial/part-00001*", tmp_path)
    flip(place / ".out.partial/part-00000-of-00003.parquet")
    assert (reason := materials.completes("predict", place)) is None, reason


def test_a_damaged_file_of_a_publication_is_named_and_without_it_is_made_again(materials, tmp_path):
    place = state_with(materials, "publish catalogue", ".out.partial/data/test-*.parquet", tmp_path)
    file = next(place.glob(".out.partial/data/*.parquet"))
    flip(file)
    refused(
        materials.run(JOBS["publish catalogue"], place), str(file), "remove it, and the same command writes it again"
    )
    file.unlink()
    assert (reason := materials.completes("publish catalogue", place)) is None, reason


def test_a_publication_does_not_go_on_with_other_pictures(materials, tmp_path):
    place = state_with(materials, "publish catalogue", ".out.partial/data/test-*.parquet", tmp_path)
    shutil.copytree(materials.folder / "catalogue", place / "catalogue")
    (place / "catalogue/pictures/0.jpg").write_bytes((place / "catalogue/pictures/1.jpg").read_bytes())
    words = [str(word).format(catalogue=place / "catalogue") for word in JOBS["publish catalogue"].words]
    refused(run(place, words), "holds the finished files of an interrupted command with other settings or other data")
