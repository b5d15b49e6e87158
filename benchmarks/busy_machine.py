"""How fast a network is trained, predicts and answers visitors beside a program that keeps one core busy, by how threads wait for one another.

    python benchmarks/busy_machine.py [--work train predict space] [--backbones test_resnet convnext_atto] [--image-size 64]

Linux alone; see benchmarks/README.md.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Literal

import psutil
import torch
from kept_memory import step_of
from material import machine, spread

from hf_galaxy.command_line import Command
from hf_galaxy.cores import available_cores
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes
from hf_galaxy.models.start import resolve_start
from hf_galaxy.training.processes import keep_freed_memory
from hf_galaxy.training.waiting import VARIABLES, watch_waiting

LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
SPACE = Path(__file__).parent.parent / "spaces_app"
WAYS = {  # environment of the process that works
    "in loops": {},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "hf_galaxy": {"WATCH": "yes"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
Work = Literal["train", "predict", "space"]
WAYS_OF = {"train": list(WAYS), "predict": list(WAYS), "space": ["hf_galaxy", "one thread"]}
LOADS = {"nothing": None, "a loop in its session": False, "a loop in another session": True}
UNDISTURBED, TRIES = 0.15, 4  # cores that other programs may use during a measurement; it is repeated otherwise
PACKAGES = ["hf_galaxy", "torch", "timm"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure steps on tensors in memory, alone and beside a busy loop, in processes whose threads wait in different ways."""

    work: tuple[Work, ...] = ("train",)
    """Training steps; predictions, whose features are those of `--train head` and `embed`; answers of the Space, a picture each."""
    backbones: tuple[str, ...] = ("test_resnet", "convnext_atto", "tf_efficientnet_lite0")
    """Timm architectures, of training and predictions."""
    spaces: tuple[Path, ...] = (SPACE / "models/lite0", SPACE / "models/small")
    """Run folders of the Space's models."""
    image_size: int = 64
    """Side of what the architectures see, in pixels."""
    batch_size: int = 64
    """Galaxies a step."""
    seconds: float = 1.5
    """Seconds of steps that are timed; before them one step, or as many as hf_galaxy takes to see whether it is alone."""
    repeats: int = 3
    """Rounds."""


def serve(work: Work, model: str, settings: dict) -> None:
    """In a process of its own: for each line that comes, take steps, and answer with galaxies/s and the cores that this took."""
    if work == "space":
        step, galaxies = visited(Path(model)), 1
    else:
        keep_freed_memory()
        step = (step_of if work == "train" else predicting)(model, SimpleNamespace(**settings))
        galaxies = settings["batch_size"]
    for _ in range(3):
        step()
    watched = work != "space" and "WATCH" in os.environ
    if watched and watch_waiting() is None:
        sys.exit(
            "hf_galaxy leaves threads as they are here: neither one core, nor another library than libgomp, is of use"
        )
    print("ready", flush=True)
    for _ in sys.stdin:
        took(step, 2.3 if watched else 0)
        steps, wall, cores = took(step, settings["seconds"])
        print(json.dumps([galaxies * steps / wall, cores]), flush=True)


def predicting(backbone: str, settings: SimpleNamespace) -> Callable[[], None]:
    """Predictions for a batch of random pictures."""
    fields, _ = resolve_start(backbone, None, settings.image_size)
    model = GalaxyForVotes(GalaxyConfig(tree=load_tree("gz_evo"), image_size=settings.image_size, **fields)).eval()
    pictures = torch.rand(settings.batch_size, 3, settings.image_size, settings.image_size)

    def step() -> None:
        with torch.inference_mode():
            model.predictions(pictures)

    return step


def visited(run: Path) -> Callable[[], None]:
    """The Space's prediction for a picture file, from its bytes to the features' unlikeness, as a visitor's click starts it."""
    sys.path.insert(0, str(SPACE))
    import galaxy_models
    from picture import read_picture

    if os.environ.get("OMP_NUM_THREADS") == "1":
        galaxy_models.THREADS = 1
    model, picture = galaxy_models.GalaxyModel(run), (SPACE / "examples/two_arms.jpg").read_bytes()
    return lambda: model.predict(read_picture(picture))


def took(step: Callable[[], None], seconds: float) -> tuple[int, float, float]:
    """Take steps for this time; returns their number, their seconds, and the cores that they took."""
    start, computed, steps = time.perf_counter(), time.process_time(), 0
    while steps == 0 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    wall = time.perf_counter() - start
    return steps, wall, (time.process_time() - computed) / wall


class Worker:
    """A process that works in one of the ways when it is asked to."""

    def __init__(self, way: str, work: Work, model: str, settings: Settings) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "OMP_NUM_THREADS")}
        given = {name: value for name, value in asdict(settings).items() if isinstance(value, int | float)}
        code = f"import busy_machine; busy_machine.serve({work!r}, {model!r}, {given!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment | WAYS[way], cwd=os.path.dirname(os.path.abspath(__file__)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.process.stdout.readline() != "ready\n":
            raise BadInput(f"{model}: its process has ended")

    def speed(self, loop: psutil.Process | None) -> tuple[float, float]:
        """Galaxies per second, and the cores that all programs but this and the loop took meanwhile."""
        before, start = cores_taken(loop), time.perf_counter()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        speed, own = json.loads(self.process.stdout.readline())
        return speed, (cores_taken(loop) - before) / (time.perf_counter() - start) - own


def cores_taken(loop: psutil.Process | None) -> float:
    """Seconds of all cores so far that were not idle, without those of the loop."""
    times = psutil.cpu_times()
    loop_times = loop.cpu_times() if loop else None
    taken = times.user + times.nice + times.system + times.irq + times.softirq
    return taken - (loop_times.user + loop_times.system if loop_times else 0)


@contextmanager
def load(session: bool | None) -> Iterator[psutil.Process | None]:
    """A program that keeps a core busy meanwhile; none if None, in a session of its own if True.

    With autogroups, which most kernels have, the scheduler shares out cores among sessions first, and then among what runs in each.
    """
    if session is None:
        yield None
        return
    with subprocess.Popen([sys.executable, "-S", "-c", LOOP], start_new_session=session) as process:
        time.sleep(0.3)
        yield psutil.Process(process.pid)
        process.kill()


def measure(work: Work, model: str, settings: Settings) -> tuple[dict[tuple[str, str], list[float]], int]:
    """Galaxies per second by load and way, one of each round; and the number of measurements that others disturbed all the same."""
    speeds, disturbed = defaultdict(list), 0
    with ExitStack() as stack:
        workers = {}
        for way in WAYS_OF[work]:
            workers[way] = Worker(way, work, model, settings)
            stack.callback(workers[way].process.kill)
        for number in range(settings.repeats):
            for name, session in LOADS.items():
                with load(session) as loop:
                    for way in WAYS_OF[work][:: 1 if number % 2 else -1]:
                        for _ in range(TRIES):
                            speed, others = workers[way].speed(loop)
                            if others < UNDISTURBED:
                                break
                        disturbed += others >= UNDISTURBED
                        speeds[name, way].append(speed)
                        print(f"{work}, {model}, {name}, {way}: {speed:.1f}/s, others {others:.2f}", file=sys.stderr)
    return speeds, disturbed


def main(settings: Settings) -> None:
    if min(settings.batch_size, settings.repeats) < 1 or not settings.seconds > 0:
        raise BadInput("--batch-size, --repeats and --seconds must be positive")
    cores = len(available_cores())
    print(
        f"{settings.image_size} px, batches of {settings.batch_size}, float32, {cores} cores; galaxies/s, median (least to most) of "
        f"{settings.repeats} rounds.\n\n{machine(*PACKAGES)}\n\n"
        f"The limit: beside a loop that has half of one core, all threads have {(cores - 0.5) / cores:.2f} of the time of {cores} cores; "
        "where each has the same share of a step and waits for the one on that core, 0.50.",
        flush=True,
    )
    for work in settings.work:
        ways = WAYS_OF[work]
        print(
            f"\n| {work} | beside | {' | '.join(ways)} | hf_galaxy / alone {ways[0]} |\n|---|---|{'---:|' * (len(ways) + 1)}"
        )
        for model in map(str, settings.spaces if work == "space" else settings.backbones):
            speeds, disturbed = measure(work, model, settings)
            alone = median(speeds["nothing", ways[0]])
            for name in LOADS:
                row = [spread(speeds[name, way], 0) for way in ways]
                share = median(speeds[name, "hf_galaxy"]) / alone
                print(f"| {Path(model).name} | {name} | {' | '.join(row)} | {share:.2f} |", flush=True)
            if disturbed:
                print(f"\n{disturbed} of these measurements were disturbed by other programs.\n", flush=True)


if __name__ == "__main__":
    Command(Settings, main)()
