"""A sweep runs each cell of its grid once, whatever happens to it, to its cells, and to the sweeps beside it."""

import contextlib
import ctypes
import itertools
import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import submitit
from datasets import load_dataset

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.sweeps.attempt import _is_left, try_lock
from hf_galaxy.sweeps.cost import hours_of
from hf_galaxy.sweeps.grid import RunCell, axis_of, cells_of, name_of, prepare
from hf_galaxy.sweeps.scheduler import CellStatus, Cluster, LocalMachine, resources_for_slot, run_grid, time_left
from tests.conftest import ROOT

FORKED = f"{sys.executable} -m tests.launch"  # in place of `python`, whose start takes longer than a run

# What a training script does, as far as a sweep can see: it makes a run folder, and ends in one way or another.
STAND_IN = """
import argparse, json, os, pathlib, signal, sys, time



def outcome(kind, message, status):  # as the commands of hf_galaxy write it
    if folder := os.environ.get("HF_GALAXY_OUTCOME"):
        text = json.dumps({"kind": kind, "message": message, "status": status})
        (pathlib.Path(folder) / "outcome.json").write_text(text)
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage()
        outcome("bad_input", message, 2)


parser = Parser()
for option in ("--seed", "--how", "--go"):
    parser.add_argument(option)
parser.add_argument("--out", type=pathlib.Path)
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)
with open(given.out / "starts", "a") as file:
    file.write(f"{os.getpid()}\\n")
first = len((given.out / "starts").read_text().split()) == 1
os.close(os.open(given.out / "running", os.O_CREAT | os.O_EXCL))  # fails if the same cell runs already


def end(*_):
    if given.how == "saves":
        time.sleep(1)
        (given.out / "saved").touch()
    (given.out / "running").unlink(missing_ok=True)
    outcome("interrupted", "stopped after step 3", 143)


signal.signal(signal.SIGTERM, end)
while given.go and not pathlib.Path(given.go).exists():
    time.sleep(0.02)
if given.how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if given.how in ("hang", "deaf", "saves") or given.how == "slow" and first:
    (given.out / "hangs").touch()
    time.sleep(60)
(given.out / "running").unlink()
if given.how == "interrupted" and len((given.out / "starts").read_text().split()) < 5:
    os.kill(os.getpid(), signal.SIGTERM)
if given.how in ("terminated", "advances") and len((given.out / "starts").read_text().split()) < 5:
    if given.how == "advances":
        (given.out / f"checkpoint-{len((given.out / 'starts').read_text().split())}.pt").touch()
    os.kill(os.getpid(), signal.SIGTERM)
if given.how == "error":
    outcome("bad_input", "--how error: no such thing", 1)
if given.how == "byhand" and first:
    outcome("in_use", "--out x: another command trains this run at this moment", 1)
if given.how == "crashes" or given.how == "crash" and first:
    outcome("crashed", "ValueError: a bug", 1)
if given.how == "killed" and first:
    os.kill(os.getpid(), signal.SIGKILL)
results = {"test": {"loss": {"model": 1.25, "baseline": 2.5}}}
record = dict(command="", settings={}, training={"seconds": 90.0}, results=results, finished=given.how != "nothing")
(given.out / "run.json").write_text(json.dumps(record))
"""


@pytest.fixture
def stand_in(tmp_path):
    """The stand-in for a training script."""
    (tmp_path / "train.py").write_text(STAND_IN)
    return tmp_path / "train.py"


@pytest.fixture
def sweep(monkeypatch, capsys):
    """Run a sweep in this process; returns its exit status, or error line, and what it printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["scripts/sweep.py", *map(str, words)])
        monkeypatch.chdir(ROOT)
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts/sweep.py"), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
        return code, capsys.readouterr().out

    return run


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def meanwhile(act):
    """Do something in a thread, while a sweep runs in this one; if it fails, the sweep ends."""
    ended = threading.Event()

    def watched():
        try:
            act()
        except BaseException:
            while not ended.wait(1):
                os.kill(os.getpid(), signal.SIGTERM)
            raise

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(watched)
        try:
            yield
        finally:
            ended.set()
        done.result()


def starts(out):
    """Cell -> how often its script was started."""
    return {path.parent.name: len(path.read_text().split()) for path in out.glob("*/starts")}


# The grid


def test_names_do_not_depend_on_the_order_of_axes_and_values(stand_in, tmp_path):
    vary = ["subset=1/64,1", "backbone+learning-rate=convnext_atto+1e-3,resnet18+3e-3", "seed=1,2"]
    cells = cells_of(vary, [str(stand_in)], ["python"], tmp_path / "out")
    assert len(cells) == len({cell.name for cell in cells}) == 8
    assert cells[0].name == "backbone=convnext_atto,learning-rate=1e-3,seed=1,subset=1-64"
    assert cells[0].command == (
        "python", str(stand_in), "--subset", "1/64", "--backbone", "convnext_atto", "--learning-rate", "1e-3",
        "--seed", "1", "--out", str(tmp_path / "out" / cells[0].name),
    )  # fmt: skip
    for order in itertools.permutations([*vary[:2], "seed=2,3,1"]):
        names = {cell.name for cell in cells_of(order, [str(stand_in)], ["python"], tmp_path / "out")}
        assert {cell.name for cell in cells} < names
        assert len(names) == 12


def test_names_are_names_of_folders_everywhere():
    name = name_of({"start": 'runs\\a:b/c*d?e"f<g>h|i j', "epochs": "1.", "crop": "0.5"})
    assert name == "crop=0.5,epochs=1.,start=runs-a-b-c-d-e-f-g-h-i-j"
    assert name_of({"epochs": "1."}) == "epochs=1-"
    assert not re.search(r'[\\/:*?"<>|\s]', name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "give an option and its values"),
        ("=1,2", "give an option and its values"),
        ("seed!=1,2", "give an option and its values"),
        ("seed=", "'' is no value"),
        ("seed=1,,2", "'' is no value"),
        ("seed=1, 2", "' 2' is no value"),
        ("start=a=b", "'a=b' is no value"),
        ("seed=1,2,1", "1 is repeated"),
        ("subset=1/4,1,0.25", "0.25 is repeated"),
        ("learning-rate=1e-3,0.001", "0.001 is repeated"),
        ("backbone+learning-rate=a+1,b", "'b' is not 2 values joined by +"),
        ("backbone+learning-rate=a+1e+3", "'a+1e+3' is not 2 values joined by +"),
        ("seed+seed=1+2", "names an option twice"),
        ("flip=True,False", "--flip takes no value, so it cannot be varied"),
    ],
)
def test_an_axis_that_is_none_is_refused(text, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        axis_of(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "{script}"], "give at least one axis"),
        (["--vary", "seed=1,2"], "give the command that all cells share after --"),
        (["--vary", "seed=1", "--", "train.py"], "train.py: no such command or script"),
        (["--vary", "seed=1", "--", "--epochs", "3"], "--epochs: no such command or script"),
        (["--vary", "seed=1", "--", "{script}", "--seed=3"], "--seed: the sweep sets it"),
        (["--vary", "image-size=1", "--", "{script}", "--image_size", "3"], "--image-size: the sweep sets it"),
        (["--vary", "seed=1", "--", "{script}", "--out", "here"], "--out: the sweep sets it"),
        (["--vary", "seed=1", "--", "{script}", "--output_dir", "here"], "--out: the sweep sets it"),
        (["--vary", "model=a", "--", "pretrain", "--backbone", "here"], "--backbone: the sweep sets it"),
        (["--vary", "out=1", "--", "{script}"], "--vary out: the sweep gives each cell a folder"),
        (["--vary", "seed=1", "--vary", "go+seed=a+2", "--", "{script}"], "two axes set --seed"),
        (["--vary", "go=a/b,a:b", "--", "{script}"], "would have the same folder go=a-b"),
        (["--vary", "go=a,A", "--", "{script}"], "would have the same folder go=A"),
        (["--vary", "go=" + 250 * "x", "--", "{script}"], "is too long for the name of a folder"),
        (["--vary", "seed=1", "--at-once", 0, "--", "{script}"], "--at-once 0: must be at least 1"),
        (["--vary", "seed=1", "--tries", 0, "--", "{script}"], "--tries 0: must be at least 1"),
        (["--vary", "seed=1", "--launch", "no-such-thing x", "--", "{script}"], "there is no such command"),
        (["--vary", "seed=1", "--launch", "accelerate 'x", "--", "{script}"], "no command line (No closing quotation)"),
        (["--vary", "seed=1", "--launch", "", "--", "{script}"], "there is no such command"),
        (["--vary", "seed=1", "--slurm-hours", 0, "--", "{script}"], "--slurm-hours must be more than 0"),
        (["--vary", "seed=1", "--slurm-options", "qos", "--", "{script}"], "--slurm-options qos: give name=value"),
        (["--vary", "seed=1", "--cluster", "slurm", "--", "{script}"], "there is no sbatch on this machine"),
        (["--vary", "seed=1", "--estimate", "--cluster", "local", "--", "{script}"], "without --cluster"),
        (["--vary", "seed=1", "--", "{script}", "--estimate"], "--estimate: comes before --"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_is_made(words, message, stand_in, sweep, tmp_path):
    words = [str(word).format(script=stand_in) for word in words]
    line, _ = sweep("--out", tmp_path / "law", *words)
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "law").exists()


def test_a_sweep_with_another_common_command_is_refused(stand_in, sweep, tmp_path):
    law = tmp_path / "law"
    (tmp_path / "go").touch()
    assert sweep("--out", law, "--vary", "seed=1", "--", stand_in)[0] == 0
    for words in ([], ["--dry-run"]):
        line, _ = sweep("--out", law, "--vary", "seed=1,2", *words, "--", stand_in, "--go", tmp_path / "go")
        assert f"its cells share another command ({stand_in}); choose another --out" in line
    assert starts(law) == {"seed=1": 1}
    line, _ = sweep("--out", law / "seed=1", "--vary", "seed=1,2", "--", stand_in)
    assert "is a run folder; choose another for the sweep" in line
    (tmp_path / "file").touch()
    assert "cannot be written" in sweep("--out", tmp_path / "file", "--vary", "seed=1", "--", stand_in)[0]


def test_sweeps_may_make_their_folder_at_the_same_moment(tmp_path):
    start = threading.Barrier(8, timeout=300)

    def make(_):
        for i in range(50):
            start.wait()
            prepare(tmp_path / str(i), ["scripts/pretrain.py", "--dataset", "x"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert {file.name for file in tmp_path.glob("*/.cells/*")} == {"command"}


# What becomes of cells


def test_finished_cells_are_skipped_and_the_table_says_how_good_they_are(stand_in, sweep, tmp_path):
    law = tmp_path / "law"
    by_hand = [sys.executable, str(stand_in), "--seed", "1", "--out", str(law / "seed=1")]
    subprocess.run(by_hand, check=True)
    code, text = sweep("--out", law, "--vary", "seed=1,2", "--dry-run", "--", stand_in)
    assert code == 0
    assert f"done  {' '.join(by_hand)}" in text
    assert "2 cells: 1 done, 1 to do" in text
    assert not (law / ".cells").exists()
    code, text = sweep("--out", law, "--vary", "seed=1,2", "--", stand_in)
    assert code == 0
    assert re.search(r"seed=2 +done +0:01:30 +1\.2500 +2\.5000", text)
    assert "1 of 2 done, 1 running, 0 failed, time left about 0:01:" in text
    assert "seed=1: done" not in text, "it was from the start"
    assert "2 of 2 done, 0 running, 0 failed" in text
    assert sweep("--out", law, "--vary", "seed=1,2,3", "--at-once", 2, "--", stand_in)[0] == 0
    assert starts(law) == {"seed=1": 1, "seed=2": 1, "seed=3": 1}


def test_crashes_are_tried_again_errors_are_not(stand_in, sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.sweeps.scheduler.RETRY_SECONDS", 0.3)
    law, hows = tmp_path / "law", "crash,killed,interrupted,crashes,error,nothing,byhand"
    code, text = sweep("--out", law, "--vary", f"how={hows}", "--at-once", 7, "--", stand_in)
    assert code == 1
    assert starts(law) == {
        "how=crash": 2, "how=killed": 2, "how=interrupted": 5, "how=crashes": 3, "how=error": 1, "how=nothing": 1,
        "how=byhand": 2,
    }  # fmt: skip
    assert "4 of 7 done, 0 running, 3 failed" in text
    assert "how=byhand: elsewhere" in text
    assert "failed: how=crashes: ValueError: a bug" in text
    assert "failed: how=error: --how error: no such thing" in text
    assert "failed: how=nothing: the command succeeded, but its run.json does not say that the run is finished" in text
    assert "how=killed: running (killed by SIGKILL)" in text
    assert (law / ".cells/how=crashes.log").read_text().count("train.py --how crashes") == 3
    assert not list(law.glob(".cells/*.outcome"))
    code, text = sweep("--out", law, "--vary", "how=crashes", "--tries", 1, "--", stand_in, "--unknown")
    assert "choose another --out" in code
    code, text = sweep("--out", tmp_path / "b", "--vary", "unknown=1", "--", stand_in)
    assert "failed: unknown=1: unrecognized arguments: --unknown 1" in text
    assert starts(tmp_path / "b") == {}


@pytest.mark.parametrize(
    "launcher",
    [
        "subprocess.run([sys.executable, *sys.argv[1:]], check=True)",  # as accelerate does for one process
        "subprocess.run([sys.executable, *sys.argv[1:]])\nsys.exit(1)",  # as torchrun does
    ],
)
def test_wrong_options_under_a_launcher_are_not_tried_again(launcher, stand_in, sweep, tmp_path):
    (tmp_path / "launch.py").write_text(f"import subprocess, sys\n{launcher}\n")
    launch = ("--launch", f"{sys.executable} {tmp_path / 'launch.py'}")
    code, text = sweep("--out", tmp_path / "law", "--vary", "unknown=1", *launch, "--", stand_in)
    assert code == 1
    assert "failed: unknown=1: unrecognized arguments: --unknown 1\n" in text
    assert (tmp_path / "law/.cells/unknown=1.log").read_text().count("usage:") == 1


def test_a_run_that_its_launcher_ends_again_and_again_is_failed(stand_in, sweep, tmp_path):
    """As torchrun ends the others by SIGTERM when one process is killed: unless there is a new checkpoint, this is a crash."""
    (tmp_path / "launch.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[1:]])\nsys.exit(1)\n"
    )
    launch = ("--launch", f"{sys.executable} {tmp_path / 'launch.py'}")
    code, text = sweep("--out", tmp_path / "law", "--vary", "how=terminated,advances", *launch, "--", stand_in)
    assert code == 1
    assert starts(tmp_path / "law") == {"how=terminated": 3, "how=advances": 5}
    assert "failed: how=terminated: exit status 1 of its launcher: stopped after step 3\n" in text
    assert "1 of 2 done, 0 running, 1 failed" in text


def test_a_command_that_is_not_of_hf_galaxy_is_judged_by_its_exit_status(sweep, tmp_path):
    """Any command that makes a run folder can be swept."""
    script = tmp_path / "train.sh"
    script.write_text(
        'while [ "$1" != --out ]; do shift; done\nmkdir -p "$2"\necho x >> "$2/starts"\n'
        'case "$2" in *end=1) exit 1;; *end=2) exit 2;; esac\n'
        """echo '{"command": "", "settings": {}, "training": {"seconds": 1.0}, "results": {"test": {"loss": {}}}, "finished": true}' """
        '> "$2/run.json"\n'
    )
    code, text = sweep("--out", tmp_path / "law", "--vary", "end=0,1,2", "--launch", "sh", "--", script)
    assert code == 1
    assert starts(tmp_path / "law") == {"end=0": 1, "end=1": 3, "end=2": 1}
    assert "failed: end=1: exit status 1\n" in text
    assert "failed: end=2: exit status 2, of wrong options\n" in text


def test_a_terminal_gets_a_table(stand_in, sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "12")
    vary = ("--vary", "seed=" + ",".join(map(str, range(9))))
    code, text = sweep("--out", tmp_path / "law", *vary, "--at-once", 4, "--", stand_in)
    assert code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"seed=0 +running", text)
    assert "0 of 9 done, 4 running, 0 failed, time left not known yet" in text
    assert "and 5 more" in text
    assert len(re.findall(r"seed=\d +done", text.rpartition("\n9 of 9 done")[2])) == 9


def test_the_time_left_is_that_of_cells_alike(tmp_path):
    def status(subset, seed, state, seconds=None, started=0.0):
        record = RunRecord("", {}, training={"seconds": seconds}) if seconds else None
        cell = RunCell({"subset": subset, "seed": seed}, (), tmp_path)
        return CellStatus(cell, state, started=started, record=record)

    grid = [status("1", "1", "waiting"), status("1", "2", "failed")]
    assert time_left(grid, 1) is None
    grid += [status("1/4", str(seed), "done", seconds) for seed, seconds in ((1, 10.0), (2, 20.0))]
    assert time_left(grid, 1) == 10.0, "seed 1 on other data is all that is known"
    grid += [status("1/4", "3", "waiting"), status("1/2", "9", "done", 60.0), status("1/2", "8", "elsewhere")]
    assert time_left(grid, 1) == 10.0 + 15.0 + 60.0
    assert time_left(grid, 2) == 60.0, "the longest sets the end"
    grid += [status("1/2", "7", "running", started=time.monotonic() - 50.0)]
    assert time_left(grid, 1) == pytest.approx(95.0, abs=1.0)


def test_runs_at_once_share_the_cores():
    mine = os.sched_getaffinity(0)
    assert resources_for_slot(0, 1) == ({}, None)
    for at_once in range(2, 2 * len(mine) + 1):
        shares = [resources_for_slot(slot, at_once) for slot in range(at_once)]
        counts = Counter(core for _, cores in shares for core in cores)
        assert counts.keys() <= mine
        assert max(counts.values()) - min(counts.values()) <= 1
        each = {len(cores) for _, cores in shares}
        assert each == {max(1, len(mine) // at_once)}, "the bits of a run depend on how many it has"
        assert all(given == {"OMP_NUM_THREADS": str(max(1, len(mine) // at_once))} for given, _ in shares)


def test_several_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [resources_for_slot(slot, 3)[0] for slot in range(3)] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "010"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [resources_for_slot(slot, 2)[0] for slot in range(2)] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "57"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert [resources_for_slot(slot, 2)[0]["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0,2,4,6", "1,3,5,7"]
    assert [resources_for_slot(slot, 3)[0]["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0,3,6", "1,4,7", "2,5"]


# What it will cost


# What a training script says of itself, and in "tried" how often it was asked to: width sets what a galaxy costs.
ESTIMATED = """
import argparse, json, os, pathlib, sys, time

parser = argparse.ArgumentParser()
for option in ("--backbone", "--learning-rate", "--seed", "--subset", "--epochs", "--validate-every"):
    parser.add_argument(option, default="1")
parser.add_argument("--out", type=pathlib.Path)
parser.add_argument("--estimate", action="store_true")
given = parser.parse_args()
assert given.estimate
with open(pathlib.Path(__file__).with_name("tried"), "a") as file:
    file.write(f"{given.backbone} {given.subset}\\n")
if given.backbone == "wrong":
    end = {"kind": "bad_input", "message": "--backbone wrong: there is no such thing", "status": 1}
    (pathlib.Path(os.environ["HF_GALAXY_OUTCOME"]) / "outcome.json").write_text(json.dumps(end))
    sys.exit(1)
if given.backbone == "silent":
    sys.exit()
above, _, below = given.subset.partition("/")
share = float(above) / float(below or 1)
found = dict(
    subset=share, epochs=float(given.epochs), validate_every=float(given.validate_every), batch_size=10, cooldown=0.2, doublings=0,
    galaxies={"train": round(share * 1000), "validation": 300, "test": 600}, galaxies_per_second=float(given.backbone),
    evaluated_per_second=3 * float(given.backbone), features_seconds=0.0, saving_seconds=0.5, tried_seconds=1000.0, weights_bytes=10**6,
    checkpoint_bytes=4 * 10**6, checkpoints=3, kept=1, memory_bytes=10**9,
)
(pathlib.Path(os.environ["HF_GALAXY_OUTCOME"]) / "estimate.json").write_text(json.dumps(found))
"""


def test_an_estimate_adds_up_what_each_cell_needs(sweep, tmp_path):
    script, law = tmp_path / "train.py", tmp_path / "law"
    script.write_text(ESTIMATED)
    grid = ("--vary", "backbone=5,50", "--vary", "seed=1,2", "--vary", "learning-rate=1,2",
            "--vary", "subset+epochs+validate-every=1/10+9+2,1/2+3+1")  # fmt: skip
    done = "backbone=5,epochs=3,learning-rate=1,seed=1,subset=1-2,validate-every=1"
    (law / done).mkdir(parents=True)
    RunRecord("", {}, finished=True).save(law / done)
    code, text = sweep("--out", law, *grid, "--estimate", "--at-once", 2, "--", script)
    assert code == 0, text
    assert "16 cells: 1 done, 15 to do" in text
    assert sorted((tmp_path / "tried").read_text().split("\n"))[1:] == ["5 1/2", "50 1/2"], (
        "each kind once, on most galaxies"
    )
    assert not (law / ".cells").exists()
    assert {file.name for file in law.iterdir()} == {done}

    # 1,000 seconds of the try-outs are no start of a run: that is less than 0 here, but for the seconds they really took.
    rows = {line.split()[0]: line.split() for line in text.splitlines() if re.match(r" *backbone=", line)}
    for backbone, small, large in ((5, 4, 3), (50, 4, 4)):
        row = rows[f"backbone={backbone}"]
        assert int(row[1]) == small + large
        assert int(row[2].replace(",", "")) == small * 9 * 100 + large * 3 * 500
        assert float(row[3]) == 1000 / backbone
        start = float(row[4])
        each = [
            9 * 100 / backbone + 5 * (300 / (3 * backbone) + 0.5),
            3 * 500 / backbone + 3 * (300 / (3 * backbone) + 0.5),
        ]
        test = 600 / (3 * backbone)
        expected = small * each[0] + large * each[1] + (small + large) * (start + test)
        assert float(row[6]) == pytest.approx(expected / 3600, abs=0.01)
    assert f"{15 * 5 + 2 * 16:,} MB of disk" in text, (
        "weights and a checkpoint of each stay; two runs have 4 checkpoints"
    )


def test_the_hours_are_those_of_runs_that_start_when_there_is_room():
    rng = random.Random(0)
    for at_once in (1, 2, 3, 7):
        seconds = [rng.randint(1, 60) for _ in range(20)]
        waiting, running, now = deque(seconds), [], 0  # second by second
        while waiting or running:
            running = [left - 1 for left in running if left > 1]
            while waiting and len(running) < at_once:
                running.append(waiting.popleft())
            now += bool(running)
        assert hours_of(seconds, at_once) == pytest.approx(now / 3600)


@pytest.mark.parametrize(
    ("vary", "words", "message"),
    [
        ("subset=1/0,1", (), "--vary subset: '1/0' is no number"),
        ("epochs=1,many", (), "--vary epochs: 'many' is no number"),
        ("backbone=wrong", (), "backbone=wrong: cannot be tried out: --backbone wrong: there is no such thing"),
        ("backbone=silent", (), "with --estimate its command writes none"),
        ("seed=5", ("--unknown",), "cannot be tried out: exit status 2, of wrong options; by hand: "),
    ],
)
def test_what_cannot_be_estimated_is_refused(vary, words, message, sweep, tmp_path):
    (tmp_path / "train.py").write_text(ESTIMATED)
    line, _ = sweep("--out", tmp_path / "law", "--vary", vary, "--estimate", "--", tmp_path / "train.py", *words)
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "law").exists()


# Never the same cell twice


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on forks of processes with threads
def test_two_sweeps_share_out_the_cells_and_one_may_be_killed(stand_in, sweep, tmp_path):
    law, go = tmp_path / "law", tmp_path / "go"
    words = ("--out", law, "--vary", "seed=1,2,3,4,5")
    killed = multiprocessing.get_context("fork").Process(
        target=sweep, args=(*words, "--at-once", 2, "--", stand_in, "--go", go), daemon=True
    )
    killed.start()  # forked, as another interpreter would need seconds to import everything
    until(lambda: len(list(law.glob("*/running"))) == 2)

    def act():
        until(lambda: len(list(law.glob("*/running"))) == 5)
        killed.kill()  # its runs go on, and keep their locks
        killed.join()
        time.sleep(1.3)
        assert starts(law) == {f"seed={seed}": 1 for seed in range(1, 6)}
        go.touch()

    with meanwhile(act):
        code, text = sweep(*words, "--at-once", 5, "--", stand_in, "--go", go)
    assert code == 0, text
    assert starts(law) == {f"seed={seed}": 1 for seed in range(1, 6)}
    assert "seed=1: elsewhere" in text
    assert "3 running, 0 failed, 2 running elsewhere" in text


def test_sweeps_that_race_start_each_cell_once(stand_in, tmp_path):
    """Several processes take the locks of the same cells as fast as they can, each after the one before let go of it."""
    cells = cells_of(["seed=" + ",".join(map(str, range(12)))], [str(stand_in)], [sys.executable], tmp_path / "law")
    prepare(tmp_path / "law", [str(stand_in)])

    def work():
        grid = [CellStatus(cell) for cell in cells]
        run_grid(grid, LocalMachine(2, []), 2, 1, [], lambda: None)
        return {status.state for status in grid}

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(work) for _ in range(4)]] == 4 * [{"done"}]
    assert starts(tmp_path / "law") == {cell.name: 1 for cell in cells}


def test_a_run_whose_launcher_was_killed_is_waited_for(stand_in, sweep, tmp_path):
    """Also if it left the launcher's process group, and the launcher closes all files it does not know."""
    (tmp_path / "launch.py").write_text(
        "import os, signal, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)\n"
        "time.sleep(0.5)\n"
        "open(__file__ + '.ended', 'w').close()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    go = tmp_path / "go"

    def act():
        until((tmp_path / "launch.py.ended").exists)
        time.sleep(2)  # in which the sweep sees that the launcher has ended, and the run has not
        go.touch()

    with meanwhile(act):
        code, text = sweep(
            "--out", tmp_path / "law", "--vary", "seed=1", "--launch", f"{sys.executable} {tmp_path / 'launch.py'}",
            "--", stand_in, "--go", go,
        )  # fmt: skip
    assert code == 0, text
    assert starts(tmp_path / "law") == {"seed=1": 1}
    assert "seed=1: elsewhere" in text


def test_a_sweep_that_is_told_to_end_ends_its_runs(stand_in, sweep, tmp_path):
    law = tmp_path / "law"

    def act():
        until(lambda: len(list(law.glob("*/hangs"))) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: not (law / "how=hang/running").exists())  # it ended in its own way
        time.sleep(1)
        os.kill(int((law / "how=deaf/starts").read_text()), 0)  # the other gets time
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(act):
        code, text = sweep("--out", law, "--vary", "how=hang,deaf,ok", "--at-once", 2, "--", stand_in)
    assert code == 128 + signal.SIGTERM, text
    assert "0 of 3 done" in text
    assert starts(law) == {"how=hang": 1, "how=deaf": 1}
    for how in ("hang", "deaf"):
        cell = RunCell({"how": how}, (), law)
        try_lock(cell).close()  # nobody holds it
        with pytest.raises(ProcessLookupError):
            os.kill(int((cell.folder / "starts").read_text()), 0)


def test_a_run_saves_also_if_its_launcher_ends_at_once(stand_in, sweep, tmp_path):
    (tmp_path / "launch.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[1:]], check=True)\n"
    )
    folder = tmp_path / "law/how=saves"

    def act():
        until((folder / "hangs").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(act):
        code, text = sweep(
            "--out", folder.parent, "--vary", "how=saves", "--launch", f"{sys.executable} {tmp_path / 'launch.py'}",
            "--", stand_in,
        )  # fmt: skip
    assert code == 128 + signal.SIGTERM, text
    assert (folder / "saved").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a process cannot adopt orphans")
def test_a_zombie_is_not_waited_for():
    """What a launcher leaves behind is adopted by this process, which does not reap it, like the first one of a container."""
    adopt = ctypes.CDLL(None, use_errno=True).prctl
    assert adopt(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    try:
        code = "import os, time\nif pid := os.fork(): print(pid, flush=True)\nelse: os.read(0, 1)"
        launcher = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        orphan = int(launcher.stdout.readline())
        until(lambda: launcher.poll() is not None)
        assert _is_left(launcher), "what it has started lives"
        launcher.stdin.close()
        until(lambda: ") Z " in Path(f"/proc/{orphan}/stat").read_text())
        os.killpg(launcher.pid, 0)  # a zombie takes signals as if it lived
        assert not _is_left(launcher)
        os.waitpid(orphan, 0)
        launcher.stdout.close()
    finally:
        adopt(36, 0, 0, 0, 0)


def test_nothing_is_submitted_any_more_once_the_sweep_is_told_to_end(stand_in, tmp_path):
    cells = cells_of(["seed=1,2,3"], [str(stand_in)], [sys.executable], tmp_path / "law")
    prepare(tmp_path / "law", [str(stand_in)])
    stop, grid = [], [CellStatus(cell) for cell in cells]

    class Queue:
        queues = True

        def start(self, cell, lock):
            lock.close()
            stop.append(signal.SIGINT)
            return Future()

    run_grid(grid, Queue(), 3, 1, stop, lambda: None)
    assert [status.state for status in grid] == ["queued", "waiting", "waiting"]


# On a cluster


# The least of Slurm that submitit needs: jobs start at once, and `scontrol requeue` starts one again.
SLURM = {
    "sbatch": 'cp "$1" "$SLURM_HERE/sbatch-$$"; start 77 "$SLURM_HERE/sbatch-$$"; echo Submitted batch job 77',
    "scontrol": 'start "$2" "$SLURM_HERE"/sbatch-*',
    "sacct": "echo 'JobID|State|NodeList'; cat \"$SLURM_HERE/states\"",
    "srun": 'while [[ "$1" == --* ]]; do [[ "$1" == --unbuffered ]] && shift || shift 2; done; echo $$ > "$SLURM_HERE/pid"; '
    'exec "$@"',
}
START = """#!/bin/bash
start() { SLURM_JOB_ID=$1 setsid bash "$2" >> "$SLURM_HERE/out" 2>&1 < /dev/null & }
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of its commands, and of what they leave."""
    here = tmp_path / "slurm"
    here.mkdir()
    for name, body in SLURM.items():
        (here / name).write_text(f"{START}{body}\n")
        (here / name).chmod(stat.S_IRWXU)
    (here / "states").write_text("77|RUNNING|here\n")
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_HERE", str(here))
    monkeypatch.setattr("hf_galaxy.sweeps.scheduler.Cluster.poll_seconds", 0.5)
    return here


def test_a_slurm_job_goes_on_when_its_time_is_over(stand_in, sweep, tmp_path, slurm):
    here, law = slurm, tmp_path / "law"
    words = ("--out", law, "--vary", "how=slow", "--cluster", "slurm", "--slurm-partition", "gpu", "--slurm-options",
             "account=galaxies", "--", stand_in)  # fmt: skip

    def end_the_sweep():
        until((law / "how=slow/hangs").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(end_the_sweep):
        code, text = sweep(*words)
    assert code == 128 + signal.SIGTERM, text
    assert "how=slow: queued" in text
    assert "how=slow: running" in text
    assert "where the same command finds them: 77" in text
    script = next(here.glob("sbatch-*")).read_text()
    for line in ("partition=gpu", "account=galaxies", "time=240", "gpus-per-node=1", "cpus-per-task=8"):
        assert f"#SBATCH --{line}\n" in script

    def end_the_time():
        time.sleep(0.5)
        os.kill(int((here / "pid").read_text()), signal.SIGUSR2)  # as Slurm does before a job's time is over

    with meanwhile(end_the_time):
        code, text = sweep(*words)
    assert code == 0, text + (here / "out").read_text()
    assert starts(law) == {"how=slow": 2}
    assert len(list(here.glob("sbatch-*"))) == 1, "it was submitted once"


def test_jobs_of_this_machine_take_the_place_of_slurms(stand_in, sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_galaxy.sweeps.scheduler.Cluster.poll_seconds", 0.5)
    law = tmp_path / "law"
    code, text = sweep("--out", law, "--vary", "how=crash", "--cluster", "local", "--", stand_in)
    assert code == 0, text
    assert starts(law) == {"how=crash": 2}
    assert RunRecord.load(law / "how=crash").finished


def test_jobs_that_slurm_refuses(stand_in, sweep, tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition: gpv' >&2\nexit 1\n")
    line, _ = sweep("--out", tmp_path / "law", "--vary", "seed=1,2", "--cluster", "slurm", "--", stand_in)
    assert line == "error: seed=1: the cluster refuses its job: sbatch: error: invalid partition: gpv"


@pytest.mark.parametrize(
    ("number", "state", "minutes", "then"),
    [
        ("", "", 0, "77"),  # the sweep was killed while it wrote the number
        ("501", "", 9, "77"),  # Slurm has forgotten it
        ("502", "", 0, "502"),  # and does not know it yet
        ("503", "PENDING", 9, "503"),
        ("504", "FAILED", 0, "77"),
        ("505", "PREEMPTED", 0, "77"),
    ],
)
def test_a_job_that_is_no_more_is_submitted_again(number, state, minutes, then, stand_in, tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/bash\necho Submitted batch job 77\n")
    (slurm / "states").write_text(f"{number}|{state}|here\n" if state else "")
    [cell] = cells_of(["seed=1"], [str(stand_in)], [sys.executable], tmp_path / "law")
    prepare(tmp_path / "law", [str(stand_in)])
    cell.state_file("job").write_text(number)
    os.utime(cell.state_file("job"), (time.time() - 60 * minutes,) * 2)
    place = Cluster(submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm"), submitit.SlurmJob)
    assert place.start(cell, try_lock(cell)).job.job_id == then
    assert cell.state_file("job").read_text().strip() == then
    try_lock(cell).close()  # nobody holds it: the job will take it


@pytest.mark.parametrize(
    ("number", "state", "kind"),
    [
        ("601", "NODE_FAIL", "crashed"),
        ("602", "PREEMPTED", "interrupted"),
        ("603", "CANCELLED by 1000", "bad_input"),
        ("604", "OUT_OF_MEMORY", "bad_input"),
    ],
)
def test_what_slurm_says_of_a_job_that_left_no_outcome(number, state, kind, stand_in, tmp_path, slurm, monkeypatch):
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 0)  # for slow disks
    (slurm / "sbatch").write_text(f"#!/bin/bash\necho Submitted batch job {number}\n")
    (slurm / "states").write_text(f"{number}|{state}|here\n")
    [cell] = cells_of(["seed=1"], [str(stand_in)], [sys.executable], tmp_path / "law")
    prepare(tmp_path / "law", [str(stand_in)])
    job = Cluster(submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm"), submitit.SlurmJob).start(
        cell, try_lock(cell)
    )
    assert job.done()
    outcome = job.result()
    assert outcome.kind == kind
    assert f"job {number}, {state.lower()}" in outcome.message


# For real


def test_runs_are_pretrained_and_their_losses_shown(mock_dataset, sweep, tmp_path):
    law = tmp_path / "law"
    code, text = sweep(
        "--out", law, "--vary", "learning-rate=1e-3", "--launch", FORKED, "--", "pretrain", "--dataset",
        mock_dataset, "--backbone", "test_convnext", "--image-size", 32, "--batch-size", 16, "--epochs", 1,
        "--min-votes", 3, "--workers", 0,
    )  # fmt: skip
    assert code == 0, text
    record = json.loads((law / "learning-rate=1e-3/run.json").read_text())
    assert record["finished"]
    assert record["command"].startswith(f"hf-galaxy pretrain --dataset {mock_dataset} ")
    loss = record["results"]["test"]["loss"]
    assert re.search(rf"done .* {loss['model']:.4f} +{loss['baseline']:.4f}", text)


def test_runs_are_estimated_before_they_are_pretrained(mock_dataset, sweep, tmp_path):
    law = tmp_path / "law"
    code, text = sweep(
        "--out", law, "--vary", "seed=1,2", "--vary", "subset+epochs=1/4+2,1/2+3", "--estimate", "--launch", FORKED, "--",
        "scripts/pretrain.py", "--dataset", mock_dataset, "--backbone", "test_convnext", "--image-size", 32, "--batch-size",
        16, "--min-votes", 3, "--workers", 0,
    )  # fmt: skip
    assert code == 0, text
    assert "trying out 1 kinds of runs" in text
    galaxies = len(load_dataset(str(mock_dataset), split="train"))
    _, cells, seen, speed, *_ = re.search(r"^ *all .*$", text, re.M)[0].split()
    assert cells == "4"
    assert int(seen.replace(",", "")) == 2 * 16 * (round(2 * galaxies / 4 / 16) + round(3 * galaxies / 2 / 16))
    assert float(speed) > 0
    assert not law.exists()


def test_help_explains_every_option(sweep):
    code, text = sweep("--help")
    assert code == 0
    _, *options = re.split(r"(?m)(?=^.? {1,2}--\w)", text)
    assert len(options) >= 12
    for option in options:
        assert len(re.findall(r"\b[a-z]+\b", option.split("(default")[0])) >= 3, f"what is this? {option}"
