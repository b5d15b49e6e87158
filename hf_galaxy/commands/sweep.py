"""Run a grid of runs, here or on a cluster. What all of them have in common comes after --.

    python scripts/sweep.py --out runs/law --vary subset=1/64,1/16,1/4,1 --vary backbone=convnext_atto,resnet18 \
        --vary seed=1,2,3 -- scripts/pretrain.py --dataset data/ceers --epochs 20

Each cell of the grid gets a run folder in --out. Finished ones are skipped, so the same command again goes on, also with
more values, also while another sweep works on the same grid. The exit status is 0 if all are done.
"""

import shlex
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hf_galaxy.command_line import run
from hf_galaxy.errors import BadInput
from hf_galaxy.sweeps.cost import Cost, costs_of, disk_of, hours_of, kinds_of
from hf_galaxy.sweeps.grid import STATE_DIR, Cell, cells_of, check_common, prepare
from hf_galaxy.sweeps.scheduler import Here, OnCluster, Progress, run_grid, stop_signals, time_left


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run every combination of some options' values, each once; what the runs have in common comes after --."""

    out: Path
    """Folder of the run folders."""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]]
    """An option and its values, such as seed=1,2,3; for each axis of the grid once. Options that vary together: backbone+learning-rate=convnext_atto+1e-3,resnet18+3e-3."""
    at_once: int | None = None
    """Cells that run at the same time; by default 1 here, and on a cluster as many as there are."""
    tries: int = 3
    """So many crashes in this sweep, and a cell is failed. Interruptions do not count; wrong settings are not tried again."""
    launch: str | None = None
    """Words before the script, such as "accelerate launch --multi_gpu --main_process_port 0"; by default this Python, for one process."""
    dry_run: bool = False
    """Only print the commands, and how many are still to be run."""
    estimate: bool = False
    """Only try out some steps of each kind of run, on this machine as it is now, and say what all cells that are to be run would cost: a kind is one backbone, precision, size of pictures or of batches, start and the like."""
    cluster: Literal["slurm", "local"] | None = None
    """Submit each cell as a job with submitit: to Slurm, or to its stand-in for Slurm on this machine. By default cells run here."""
    slurm_partition: str | None = None
    """The queue."""
    slurm_hours: float = 4.0
    """Of each job; a run that needs more goes on in the same job requeued."""
    slurm_gpus: int = 1
    """Of each job."""
    slurm_cpus: int = 8
    """Cores of each job."""
    slurm_memory_gb: float | None = None
    """Of each job; by default what the cluster gives."""
    slurm_options: tuple[str, ...] = ()
    """Other options of sbatch, such as account=galaxies qos=long."""


def check(settings: Sweep) -> None:
    """Refuse what cannot be run."""
    if settings.at_once is not None and settings.at_once < 1:
        raise BadInput(f"--at-once {settings.at_once}: must be at least 1")
    if settings.tries < 1:
        raise BadInput(f"--tries {settings.tries}: must be at least 1")
    if settings.slurm_hours <= 0 or settings.slurm_gpus < 0 or settings.slurm_cpus < 1:
        raise BadInput("--slurm-hours must be more than 0, --slurm-gpus not negative, --slurm-cpus at least 1")
    if wrong := [option for option in settings.slurm_options if "=" not in option]:
        raise BadInput(f"--slurm-options {wrong[0]}: give name=value")
    if settings.launch is not None:
        try:
            words = shlex.split(settings.launch)
        except ValueError as error:
            raise BadInput(f"--launch {settings.launch!r}: is no command line ({error})") from error
        if not words or not shutil.which(words[0]):
            raise BadInput(f"--launch {settings.launch!r}: there is no such command")
    if settings.cluster == "slurm" and not shutil.which("sbatch"):
        raise BadInput("--cluster slurm: there is no sbatch on this machine; run the sweep where jobs are submitted")
    if settings.estimate and settings.cluster:
        raise BadInput(
            "--estimate: tries out runs on this machine; give it on a node of the cluster, without --cluster"
        )


def cluster_of(settings: Sweep) -> OnCluster:
    """The cluster, and what each job asks of it."""
    try:
        import submitit
    except ImportError as error:
        raise BadInput("--cluster needs submitit: pip install 'hf_galaxy[slurm]'") from error
    # A job may be requeued 20 times because its time is over: enough for long runs, and an end for those without progress.
    executor = submitit.AutoExecutor(
        settings.out / STATE_DIR / "jobs", cluster=settings.cluster, slurm_max_num_timeout=20
    )
    executor.update_parameters(
        name="sweep",
        timeout_min=max(1, round(settings.slurm_hours * 60)),
        gpus_per_node=settings.slurm_gpus,
        cpus_per_task=settings.slurm_cpus,
        mem_gb=settings.slurm_memory_gb,
        slurm_partition=settings.slurm_partition,
        slurm_additional_parameters=dict(option.split("=", 1) for option in settings.slurm_options),
    )
    return OnCluster(executor, submitit.SlurmJob if settings.cluster == "slurm" else submitit.LocalJob)


def summary(grid: list[Progress], at_once: int) -> str:
    """How many cells are in which state, and the time left."""
    states = Counter(progress.state for progress in grid)
    left = time_left(grid, at_once)
    counts = f"{states['done']} of {len(grid)} done, {states['running']} running, {states['failed']} failed"
    others = [f", {states[state]} {word}" for state, word in ALSO.items() if states[state]]
    return f"{counts}{''.join(others)}, time left {'not known yet' if left is None else f'about {duration(left)}'}"


ALSO = {"queued": "queued", "elsewhere": "running elsewhere"}


def cost_table(costs: list[Cost]) -> Table:
    """What the cells of each kind need."""
    columns = ("cells", "galaxies seen", "ms a galaxy", "start", "hours", "memory")
    table = Table("kind", *columns, box=box.SIMPLE)
    for cost in costs:
        table.add_row(
            Text(cost.kind or "all", overflow="fold"),
            str(len(cost.cells)),
            f"{cost.seen:,}",
            f"{1000 * cost.seconds_per_galaxy:.3g}",
            f"{cost.start_seconds:.0f} s",
            f"{sum(cost.seconds) / 3600:.2f}",
            f"{max(each.memory_bytes for each in cost.tried) / 1e9:.2f} GB",
        )
    return table


def print_costs(grid: list[Cell], at_once: int, console: Console) -> None:
    """Try out each kind of run, and say what all will cost."""
    print(
        f"trying out {len(kinds_of(grid))} kinds of runs, {at_once} at once, on this machine as it is now", flush=True
    )
    costs = costs_of(grid, at_once)
    console.print(cost_table(costs))
    seconds = {cell.name: need for cost in costs for cell, need in zip(cost.cells, cost.seconds, strict=True)}
    hours = hours_of([seconds[cell.name] for cell in grid], at_once)
    longest = max(seconds, key=seconds.get)
    print(
        f"at most {hours:.2f} hours at --at-once {at_once}, if nothing else on the machine changes; early stopping makes it less\n"
        f"longest run: {longest}, {duration(seconds[longest])}\n"
        f"{disk_of(costs, at_once) / 1e6:,.0f} MB of disk, for checkpoints while runs last and for the weights that stay"
    )


def duration(seconds: float) -> str:
    """Such as 1:02:03."""
    return f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f}"


COLOURS = {"running": "cyan", "queued": "cyan", "elsewhere": "blue", "failed": "red", "done": "green", "waiting": "dim"}


def rows(grid: list[Progress]) -> Table:
    """The table of some cells: state, seconds, and a word on each; its test loss beside its baseline's when it is done."""
    table = Table("cell", "state", "time", "test loss", "baseline", "", box=box.SIMPLE)
    for progress in grid:
        seconds, loss, note = "", {}, progress.note
        if progress.record:
            seconds = duration(progress.record.training["seconds"])
            loss = progress.record.results["test"]["loss"]
        elif progress.state == "running":
            seconds = duration(time.monotonic() - progress.since)
            if step := progress.cell.step():
                note = f"at step {step:,}"
        table.add_row(
            Text(progress.cell.name, overflow="fold"),
            Text(progress.state, COLOURS[progress.state]),
            seconds,
            *(f"{loss[which]:.4f}" if which in loss else "" for which in ("model", "baseline")),
            Text("" if progress.state == "failed" else note),
        )
    return table


def shown(grid: list[Progress], at_once: int, height: int) -> Group:
    """What of the grid fits on the screen: first what runs and what failed, last what is done."""
    order = sorted(grid, key=lambda progress: list(COLOURS).index(progress.state))
    table = rows(order[: max(3, height - 8)])
    hidden = len(grid) - table.row_count
    return Group(summary(grid, at_once), table, f"and {hidden} more" if hidden else "")


def follow(grid: list[Progress], at_once: int, console: Console, work) -> None:
    """Work, and show how it gets on: a live table in a terminal, else a line for each change."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            work(show=lambda: live.update(shown(grid, at_once, console.height), refresh=True))
        return
    before = {progress.cell.name: (progress.state, progress.note) for progress in grid}

    def changes():
        for progress in grid:
            now = (progress.state, progress.note)
            if before[progress.cell.name] != now:
                note = f" ({progress.note})" if progress.note else ""
                print(f"{time.strftime('%H:%M:%S')} {progress.cell.name}: {progress.state}{note}", flush=True)
                print(f"         {summary(grid, at_once)}", flush=True)
            before[progress.cell.name] = now

    work(show=changes)


def main(settings: Sweep, common: list[str]) -> None:
    check(settings)
    if "--estimate" in common:
        raise BadInput("--estimate: comes before --, and then says what all cells would cost")
    launch = shlex.split(settings.launch) if settings.launch else [sys.executable]
    cells = cells_of(settings.vary, common, launch, settings.out)
    at_once = settings.at_once or (len(cells) if settings.cluster else 1)

    # 1. What it will cost.
    check_common(settings.out, common)
    records = [cell.record() for cell in cells]
    if settings.dry_run:
        for cell, record in zip(cells, records, strict=True):
            print(f"{'done ' if record else 'to do'} {shlex.join(cell.command)}")
    done = sum(record is not None for record in records)
    print(f"{len(cells)} cells: {done} done, {len(cells) - done} to do")
    console = Console()
    if not console.is_terminal:  # the lines of a file are as long as they need to be
        console = Console(width=100 + max(len(cell.name) for cell in cells))
    if settings.estimate and done < len(cells):
        print_costs([cell for cell, record in zip(cells, records, strict=True) if not record], at_once, console)
    if settings.dry_run or settings.estimate:
        return

    # 2. All cells, until each is done or failed.
    grid = [Progress(cell) for cell in cells]
    for progress, record in zip(grid, records, strict=True):
        if record:
            progress.state, progress.record = "done", record
    with stop_signals() as stop:
        place = cluster_of(settings) if settings.cluster else Here(at_once, stop)
        prepare(settings.out, common)
        follow(grid, at_once, console, partial(run_grid, grid, place, at_once, settings.tries, stop))
        received = stop[:1]

    # 3. How it ended.
    print(f"\n{summary(grid, at_once)}")
    console.print(rows(grid))
    for progress in grid:
        if progress.state == "failed":
            print(f"failed: {progress.cell.name}: {progress.note}\n    see {progress.cell.kept('log')}")
    if place.queues and (jobs := [progress.cell.kept("job").read_text().strip() for progress in grid if progress.job]):
        print(f"jobs that stay in the queue, where the same command finds them again: {' '.join(jobs)}")
    if received:
        sys.exit(128 + received[0])
    if any(progress.state != "done" for progress in grid):
        sys.exit(1)


def command() -> None:
    """Read the options from the command line, and run."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    common = sys.argv[end + 1 :]
    sys.argv = sys.argv[:end]
    run(Sweep, partial(main, common=common))
