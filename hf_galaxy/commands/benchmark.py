"""Compare starting weights on downstream tasks: tasks x starts x shares of the labels x modes x seeds.

    hf-galaxy benchmark --tasks public_sets --backbone tf_efficientnet_lite0 --image-size 64 \
        --starts random gz2_classes=runs/gz2_classes --reference random --out results/downstream

Each cell writes a small file into --out/cells, and is not measured again: the same command resumes the benchmark, also with more
starts, tasks, shares or seeds, and several commands share the work. At the end, or at once with --page, the page of results is
written.
"""

import contextlib
import dataclasses
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.cores import check_processes
from hf_galaxy.downstream.benchmark import RATES, Benchmark, Mode, Start, begin, check_unseen
from hf_galaxy.downstream.tasks import load_tasks, with_label
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress
from hf_galaxy.sweeps.grid import STATE_DIR
from hf_galaxy.sweeps.scheduler import CellStatus, run_grid, stop_signals
from hf_galaxy.training.settings import FractionOption

TRIES = 3  # crashes after which a cell counts as failed


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """Compare starting weights on downstream tasks, and write the page of results."""

    out: OutputPath
    """Folder of the results; an existing benchmark is resumed."""
    title: str = "Downstream benchmark"
    """Of the page."""
    tasks: str = "public_sets"
    """A TOML file of tasks, or the name of a shipped one (public_sets, scaling_laws_paper)."""
    only: tuple[str, ...] = ()
    """Names of tasks; by default all of the file."""
    starts: tuple[str, ...]
    """NAME=WEIGHTS for each start, or NAME=BACKBONE=WEIGHTS, where WEIGHTS is a value of --start of finetune.py; random: random weights, different for each seed. The same NAME again gives another pretraining by the same recipe: the seeds take them in turn, and intervals contain what differs between them; best are as many as seeds."""
    reference: str = "imagenet"
    """The start that others are compared with."""
    backbone: str | None = None
    """Architecture of the starts that do not contain it: random ones, and files of weights."""
    image_size: int | None = None
    """Side of the input of every backbone in pixels; by default that of the run that the start comes from, else 224."""
    crop: float | None = None
    """Fraction of the side of an image that is cropped from its centre as the input."""
    modes: tuple[Mode, ...] = ("linear", "full")
    """A linear probe of the frozen backbone; full finetuning."""
    shares: tuple[FractionOption, ...] = (1.0, 1 / 4, 1 / 16, 1 / 64)
    """Of the training galaxies."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Of folds, subsets, heads and the order of the galaxies, and of the pretraining, where a start has several; the first chooses the learning rates. 1 to 5 are all five folds of a task that has them."""
    learning_rates: tuple[float, ...] = RATES
    """Learning rates of full finetuning, searched from the middle one outwards by the validation loss of the first seed."""
    seen: float = 250
    """Full finetuning trains on this number of images times the square root of the number of training galaxies: with 250, on each of 4,600 galaxies 3.7 times, and of 100 galaxies 25 times."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Mixed precision of full finetuning."""
    workers: int = 0
    """Processes that decode pictures, for each that measures."""
    at_once: int = 1
    """Processes that measure, each on its share of the cores and, if there are several, of the GPUs."""
    page: bool = False
    """Only write the page, from the cells measured so far."""


def starts_of(settings: Downstream) -> dict[str, Start]:
    """The starts by name.

    Raises:
        BadInput: an option is wrong, or weights cannot be read.
    """
    from hf_galaxy.models.start import resolve_start

    starts: dict[str, Start] = {}
    for text in settings.starts:
        name, *backbone, weights = text.split("=") if "=" in text else (text, "")
        if (
            not name
            or len(backbone) > 1
            or (name != "random") != bool(weights)
            or (name == "random" and name in starts)
        ):
            raise BadInput(f"--starts {text}: give NAME=WEIGHTS or NAME=BACKBONE=WEIGHTS, or random, once")
        start = Start(name, weights or None, backbone[0] if backbone else None)
        resolve_start(
            None if start.lineage else start.backbone or settings.backbone, start.weights, settings.image_size
        )
        if name in starts:
            earlier = starts[name]
            if start.backbone != earlier.backbone:
                raise BadInput(f"--starts {text}: the pretrainings of a start have one backbone")
            start = dataclasses.replace(earlier, more=(*earlier.more, weights))
        starts[name] = start
    if settings.reference not in starts:
        raise BadInput(f"--reference {settings.reference}: is none of the starts {', '.join(starts)}")
    _check_pretrainings(starts, settings)
    return starts


def _check_pretrainings(starts: dict[str, Start], settings: Downstream) -> None:
    """Refuse pretrainings that the intervals cannot contain; raises as `starts_of`."""
    for start in starts.values():
        start.check()
        if start.more and len(start.pretrainings) > max(settings.seeds):
            raise BadInput(
                f"--starts {start.name}: has {len(start.pretrainings)} pretrainings, which seeds take in turn, but the last of --seeds is "
                f"{max(settings.seeds)}; give seeds up to {len(start.pretrainings)}"
            )
    numbers = {name: len(start.pretrainings) for name, start in starts.items() if start.more}
    reference = numbers.get(settings.reference)
    for name, number in numbers.items():
        if reference not in (None, number):
            raise BadInput(
                f"--starts {name}: has {number} pretrainings, and the reference {settings.reference} {reference}, so that their cells do not fall into "
                "independent groups; give both the same number, or one of them a single one"
            )


def measure(benchmark: Benchmark, at_once: int) -> None:
    """Measure all cells, with a progress bar.

    Raises:
        BadInput: some could not be measured; names the first.
    """
    from hf_galaxy.downstream.workers import Workers

    cells = list(benchmark.cells())
    (benchmark.out / STATE_DIR).mkdir(parents=True, exist_ok=True)
    grid: list[CellStatus] = []
    with (
        stop_signals() as stop,
        contextlib.closing(Workers(benchmark, at_once, stop)) as place,
        progress(total=len(cells), unit=" cells") as bar,
    ):

        def show() -> None:
            bar.update(sum(cell.state == "done" for cell in grid) - bar.n)

        # The first seed chooses the learning rates of the others.
        for is_first in (True, False):
            stage = [CellStatus(cell) for cell in cells if (cell.seed == benchmark.seeds[0]) == is_first]
            grid += stage
            run_grid(stage, place, at_once, TRIES, stop, show)
        received = stop[:1]
    if received:
        sys.exit(128 + received[0])
    if failed := [cell for cell in grid if cell.state == "failed"]:
        raise BadInput(
            f"{len(failed)} cells could not be measured, such as {failed[0].cell.name}: {failed[0].note}; "
            "the same command tries them again, and with --page writes the page without them"
        )


def main(settings: Downstream) -> None:
    """Measure the cells that are not measured yet, and write the page."""
    from hf_galaxy.downstream.page import write_results

    check_processes("--at-once", settings.at_once)
    check_processes("--workers", settings.workers, least=0)
    tasks = load_tasks(settings.tasks)
    if unknown := [name for name in settings.only if name not in tasks]:
        raise BadInput(f"--only {unknown[0]}: {settings.tasks} has the tasks {', '.join(tasks)}")
    tasks = {name: with_label(task) for name, task in tasks.items() if name in (settings.only or tasks)}
    benchmark = Benchmark(
        title=settings.title, tasks=tasks, starts=starts_of(settings), reference=settings.reference, out=settings.out, modes=settings.modes,
        shares=settings.shares, seeds=settings.seeds, backbone=settings.backbone, image_size=settings.image_size,
        crop=settings.crop, images_per_root=settings.seen, rates=settings.learning_rates, precision=settings.precision, workers=settings.workers,
    )  # fmt: skip

    cells = list(benchmark.cells())
    done = sum(cell.measured for cell in cells)
    kinds = ", ".join(f"{count} {mode}" for mode, count in Counter(cell.mode for cell in cells).items())
    print(f"{len(cells)} cells ({kinds}): {done} done, {len(cells) - done} to do", flush=True)
    begin(benchmark, check_unseen(benchmark))

    if not settings.page:
        measure(benchmark, settings.at_once)

    write_results(settings.out)
    print(f"page: {settings.out / 'README.md'}")


command = Command(Downstream, main)

if __name__ == "__main__":
    command()
