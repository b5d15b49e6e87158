"""How fast a network is trained beside a program that keeps one core busy, by how torch's threads wait for one another.

    python benchmarks/busy_machine.py [--backbones test_resnet convnext_atto] [--image-size 64]

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
from statistics import median
from types import SimpleNamespace

import psutil
from kept_memory import step_of
from material import machine, spread

from hf_galaxy.command_line import Command
from hf_galaxy.cores import available_cores
from hf_galaxy.errors import BadInput
from hf_galaxy.training.processes import keep_freed_memory
from hf_galaxy.training.waiting import VARIABLES, watch_waiting

LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
WAYS = {  # environment of the process that trains
    "in loops": {},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "hf_galaxy": {"WATCH": "yes"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
LOADS = {"nothing": None, "a loop in its session": False, "a loop in another session": True}
UNDISTURBED, TRIES = 0.15, 4  # cores that other programs may use during a measurement; it is repeated otherwise
PACKAGES = ["hf_galaxy", "torch", "timm"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure training steps on tensors in memory, alone and beside a busy loop, in processes whose threads wait in different ways."""

    backbones: tuple[str, ...] = ("test_resnet", "convnext_atto", "tf_efficientnet_lite0")
    """Timm architectures."""
    image_size: int = 64
    """Side of what they see, in pixels."""
    batch_size: int = 64
    """Galaxies a step."""
    seconds: float = 1.5
    """Seconds of steps that are timed; before them one step, or as many as hf_galaxy takes to see whether it is alone."""
    repeats: int = 3
    """Rounds."""


def serve(backbone: str, settings: dict) -> None:
    """In a process of its own: for each line that comes, take steps, and answer with galaxies/s and the cores that this took."""
    keep_freed_memory()
    step = step_of(backbone, SimpleNamespace(**settings))
    for _ in range(3):
        step()
    watched = "WATCH" in os.environ
    if watched and watch_waiting() is None:
        sys.exit(
            "hf_galaxy leaves threads as they are here: neither one core, nor another library than libgomp, is of use"
        )
    print("ready", flush=True)
    for _ in sys.stdin:
        took(step, 2.3 if watched else 0)
        steps, wall, cores = took(step, settings["seconds"])
        print(json.dumps([settings["batch_size"] * steps / wall, cores]), flush=True)


def took(step: Callable[[], None], seconds: float) -> tuple[int, float, float]:
    """Take steps for this time; returns their number, their seconds, and the cores that they took."""
    start, computed, steps = time.perf_counter(), time.process_time(), 0
    while steps == 0 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    wall = time.perf_counter() - start
    return steps, wall, (time.process_time() - computed) / wall


class Trainer:
    """A process that trains in one of the ways when it is asked to."""

    def __init__(self, way: str, backbone: str, settings: Settings) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "OMP_NUM_THREADS")}
        code = f"import busy_machine; busy_machine.serve({backbone!r}, {asdict(settings)!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment | WAYS[way], cwd=os.path.dirname(os.path.abspath(__file__)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.process.stdout.readline() != "ready\n":
            raise BadInput(f"{backbone}: its process has ended")

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


def measure(backbone: str, settings: Settings) -> tuple[dict[tuple[str, str], list[float]], int]:
    """Galaxies per second by load and way, one of each round; and the number of measurements that others disturbed all the same."""
    speeds, disturbed = defaultdict(list), 0
    with ExitStack() as stack:
        trainers = {}
        for way in WAYS:
            trainers[way] = Trainer(way, backbone, settings)
            stack.callback(trainers[way].process.kill)
        for number in range(settings.repeats):
            for name, session in LOADS.items():
                with load(session) as loop:
                    for way in list(WAYS)[:: 1 if number % 2 else -1]:
                        for _ in range(TRIES):
                            speed, others = trainers[way].speed(loop)
                            if others < UNDISTURBED:
                                break
                        disturbed += others >= UNDISTURBED
                        speeds[name, way].append(speed)
                        print(f"{backbone}, {name}, {way}: {speed:.1f}/s, others {others:.2f}", file=sys.stderr)
    return speeds, disturbed


def main(settings: Settings) -> None:
    if min(settings.batch_size, settings.repeats) < 1 or not settings.seconds > 0:
        raise BadInput("--batch-size, --repeats and --seconds must be positive")
    cores = len(available_cores())
    print(
        f"{settings.image_size} px, batches of {settings.batch_size}, float32, {cores} cores; galaxies/s, median (least to most) of "
        f"{settings.repeats} rounds.\n\n{machine(*PACKAGES)}\n\n"
        f"The limit: beside a loop that has half of one core, all threads have {(cores - 0.5) / cores:.2f} of the time of {cores} cores; "
        f"where each has the same share of a step and waits for the one on that core, 0.50.\n\n"
        f"| backbone | beside | {' | '.join(WAYS)} | hf_galaxy / alone in loops |\n|---|---|{'---:|' * (len(WAYS) + 1)}",
        flush=True,
    )
    for backbone in settings.backbones:
        speeds, disturbed = measure(backbone, settings)
        alone = median(speeds["nothing", "in loops"])
        for name in LOADS:
            row = [spread(speeds[name, way], 0) for way in WAYS]
            share = median(speeds[name, "hf_galaxy"]) / alone
            print(f"| {backbone} | {name} | {' | '.join(row)} | {share:.2f} |", flush=True)
        if disturbed:
            print(f"\n{disturbed} of these measurements were disturbed by other programs.\n", flush=True)


if __name__ == "__main__":
    Command(Settings, main)()
