"""Of two commands that write one folder or file the second is refused in one line, and leaves alone what the first has written so far."""

import signal
from multiprocessing import get_context

import pytest

from hf_galaxy.commands.main import module_of
from hf_galaxy.files import only_writer_of, whole_file
from hf_galaxy.models.familiarity import FILE
from hf_galaxy.reports import records_file
from tests.scaling.records import voted_records
from tests.training.runs import run as trained

FORK = get_context("fork")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, mock_dataset):
    out = tmp_path_factory.mktemp("runs") / "mock"
    trained(out, dataset=(str(mock_dataset),), epochs=1)
    return out


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for name, record in voted_records(questions=("bar",), sizes=(300, 1_000, 3_000)).items():
        (folder / name).mkdir(parents=True)
        record.save(folder / name)
    return folder


def write_for_ever(out, ready):
    with only_writer_of(out):
        partial = out.with_name(f".{out.name}.partial")
        partial.mkdir(exist_ok=True)
        with whole_file(partial / "finished") as file:
            file.write_text("of the first")
        ready.set()
        signal.pause()


@pytest.fixture
def first():
    """Starts another process that writes a folder until it is killed."""
    started = []

    def start(out):
        ready = FORK.Event()
        started.append(FORK.Process(target=write_for_ever, args=(out, ready)))
        started[-1].start()
        assert ready.wait(60)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


SIMULATE = ("publish", "simulate", "--galaxies", 20, "--size", 16, "--num-proc", 1)
OF_DATASET = ("--dataset", "{data}", "--workers", 0, "--cpu")
COMMANDS = {
    "publish simulate": SIMULATE,
    "publish card": ("publish", "card", "--card", "{card}"),
    "publish combine": ("publish", "combine", "--parts", "{data}", "--num-proc", 1),
    "publish catalogue": (
        *("publish", "catalogue", "--images", "{catalogue}/pictures", "--catalogue", "{catalogue}/votes.csv"),
        *("--columns", "{catalogue}/map.json", "--tree", "gz_rings", "--allow-inconsistent-votes", "--num-proc", 1),
    ),
    "predict": ("predict", "--run", "{run}", *OF_DATASET),
    "embed": ("embed", "--model", "{run}", *OF_DATASET),
    "export encoder": ("export", "encoder", "--run", "{run}"),
    "export onnx": ("export", "onnx", "--run", "{run}"),
    "pretrain": (
        *("pretrain", *OF_DATASET, "--backbone", "test_convnext", "--image-size", 32, "--batch-size", 16),
        *("--epochs", 1, "--min-votes", 3, "--precision", "no"),
    ),
    "fit": ("fit", "--runs", "{records}"),
    "overlap": ("overlap", "--datasets", "{data}", "--against", "{catalogue}", "--no-pictures"),
    "cutouts": (
        *("cutouts", "{positions}", "--survey", "legacy-dr10", "--fov-arcsec", 60),
        *("--contact", "me@example.org"),
    ),
    "demo": ("demo", "--quick"),
    "budget": ("budget", "--runs", "{records}", "--backbone", "test_resnet", "--measure", "excess", "--target", 0.9),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_command_into_one_folder_says_so(
    name, first, run_folder, records, mock_dataset, catalogue_folder, tmp_path, capsys
):
    out = tmp_path / "out" / "of.onnx"
    out.parent.mkdir()
    (tmp_path / "positions.csv").write_text("id,ra,dec\na,10,20\n")
    first(out)
    before = {file: file.is_file() and file.read_bytes() for file in out.parent.rglob("*")}
    places = dict(
        run=run_folder, records=records, data=mock_dataset, catalogue=catalogue_folder,
        positions=tmp_path / "positions.csv", card="dataset_cards/gz2/card.md",
    )  # fmt: skip
    command, *words = (str(word).format(**places) for word in COMMANDS[name])
    with pytest.raises(SystemExit) as refused:
        module_of(command).command([*words, "--out", str(out)])
    assert refused.value.code == (
        f"error: {out}: another command writes it at this moment; wait for it, or choose another --out"
    )
    assert {file: file.is_file() and file.read_bytes() for file in out.parent.rglob("*")} == before


def test_the_death_of_the_first_frees_the_folder(first, tmp_path, capsys):
    out = tmp_path / "out"
    process = first(out)
    process.kill()
    process.join()
    module_of("publish").command([*map(str, SIMULATE[1:]), "--out", str(out)])
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("words", "written"), [(("familiarity", "--cpu"), FILE), (("push",), "")])
def test_a_run_folder_has_one_writer_at_a_time(words, written, first, run_folder):
    first(run_folder / written)
    with pytest.raises(SystemExit) as refused:
        module_of(words[0]).command([*words[1:], "--run", str(run_folder)])
    where = run_folder / written
    assert refused.value.code == f"error: {where}: another command writes it at this moment; wait for it"


def add(file, names):
    for name in names:
        with records_file.changing(file) as records:
            records[name] = {"value": name}


def test_two_that_change_the_records_of_a_study_lose_none(tmp_path):
    file = tmp_path / records_file.FILE
    names = [[f"{letter}{number}" for number in range(10)] for letter in "abc"]
    processes = [FORK.Process(target=add, args=(file, each)) for each in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(records_file.read_records(file)) == sorted(name for each in names for name in each)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
