"""Run a grid of runs, here or on a cluster. The command that all of them share comes after --.

    hf-galaxy sweep --out runs/law --vary subset=1/64,1/16,1/4,1 --vary seed=1,2,3 -- pretrain --dataset data/ceers

Each cell of the grid gets a run folder in --out. Finished cells are skipped: the same command resumes the sweep, also with
more values, and also while another sweep runs on the same grid. The exit status is 0 if all cells are done.
"""

import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import tyro
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.errors import BadInput
from hf_galaxy.sweeps.cost import Cost, costs_of, disk_of, hours_of, kinds_of
from hf_galaxy.sweeps.grid import STATE_DIR, RunCell, cells_of, check_common, prepare
from hf_galaxy.sweeps.scheduler import CellStatus, Cluster, ClusterJob, LocalMachine, run_grid, stop_signals, time_left


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run every combination of the values of some options, each once; the command that all runs share comes after --."""

    out: OutputPath
    """Folder of the run folders."""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]]
    """An option and its values, such as seed=1,2,3; for each axis of the grid once. Options that vary together: backbone+learning-rate=convnext_atto+1e-3,resnet18+3e-3."""
    at_once: int | None = None
    """Cells that run at the same time; by default 1 here, and all on a cluster."""
    tries: int = 3
    """Crashes in this sweep after which a cell is failed. Interruptions do not count; a run that refuses its settings is not tried again."""
    launch: str | None = None
    """Words before the command, such as "accelerate launch --multi_gpu --main_process_port 0"; by default this Python, for one process."""
    dry_run: bool = False
    """Only print the commands and the number of cells to do."""
    estimate: bool = False
    """Only try out some steps of each kind of run on this machine, and print the cost of all cells to do. A kind of run is one backbone, precision, image size, batch size, start and the like."""
    cluster: Literal["slurm", "local"] | None = None
    """Submit each cell as a job with submitit: to Slurm, or to its stand-in for Slurm on this machine. By default cells run here."""
    slurm_partition: str | None = None
    """The partition (queue) of the jobs."""
    slurm_hours: float = 4.0
    """Of each job; a longer run resumes when the same job is requeued."""
    slurm_gpus: int = 1
    """GPUs of each job."""
    slurm_cpus: int = 8
    """Cores of each job."""
    slurm_memory_gb: float | None = None
    """Of each job; by default that of the cluster."""
    slurm_options: tuple[str, ...] = ()
    """Other options of sbatch, such as account=galaxies qos=long."""


def check(settings: Sweep) -> None:
    """Refuse options that no sweep can have.

    Raises:
        BadInput: an option has a wrong value.
    """
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
        raise BadInput("--estimate: tries out runs on this machine; use it on a node of the cluster, without --cluster")


def cluster_of(settings: Sweep) -> Cluster:
    """The cluster, with the resources of each job.

    Raises:
        BadInput: submitit is not installed.
    """
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
    return Cluster(executor, submitit.SlurmJob if settings.cluster == "slurm" else submitit.LocalJob)


# Costs


def cost_table(costs: list[Cost]) -> Table:
    """The costs of the cells of each kind."""
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
            f"{max(each.memory_bytes for each in cost.estimates) / 1e9:.2f} GB",
        )
    return table


def print_costs(cells: list[RunCell], at_once: int, console: Console) -> None:
    """Try out each kind of run, and print the costs of all cells."""
    print(f"trying out {len(kinds_of(cells))} kinds of runs, {at_once} at once, on this machine", flush=True)
    costs = costs_of(cells, at_once)
    console.print(cost_table(costs))
    seconds = {cell.name: need for cost in costs for cell, need in zip(cost.cells, cost.seconds, strict=True)}
    hours = hours_of([seconds[cell.name] for cell in cells], at_once)
    longest = max(seconds, key=seconds.__getitem__)
    print(
        f"at most {hours:.2f} hours at --at-once {at_once}, under the present load of the machine; early stopping shortens it\n"
        f"longest run: {longest}, {duration(seconds[longest])}\n"
        f"{disk_of(costs, at_once) / 1e6:,.0f} MB of disk, for the checkpoints of running cells and the weights that remain"
    )


def duration(seconds: float) -> str:
    """Such as 1:02:03."""
    return f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f}"


# The state of the grid

COLOURS = {"running": "cyan", "queued": "cyan", "elsewhere": "blue", "failed": "red", "done": "green", "waiting": "dim"}


def summary(grid: list[CellStatus], at_once: int) -> str:
    """The number of cells in each state, and the time left."""
    states: Counter[str] = Counter(status.state for status in grid)
    left = time_left(grid, at_once)
    words = {"queued": "queued", "elsewhere": "running elsewhere"}
    others = [f", {states[state]} {word}" for state, word in words.items() if states[state]]
    counts = f"{states['done']} of {len(grid)} done, {states['running']} running, {states['failed']} failed"
    return f"{counts}{''.join(others)}, time left {'not known yet' if left is None else f'about {duration(left)}'}"


def status_table(grid: list[CellStatus]) -> Table:
    """The state, time and note of each cell; of a finished run its test loss beside that of its baseline."""
    table = Table("cell", "state", "time", "test loss", "baseline", "", box=box.SIMPLE)
    for status in grid:
        seconds, loss, note = "", {}, status.note
        if status.record:
            seconds = duration(status.record.training["seconds"])
            loss = status.record.results["test"]["loss"]
        elif status.state == "running":
            seconds = duration(time.monotonic() - status.started)
            if step := status.cell.step():
                note = f"at step {step:,}"
        table.add_row(
            Text(status.cell.name, overflow="fold"),
            Text(status.state, COLOURS[status.state]),
            seconds,
            *(f"{loss[which]:.4f}" if which in loss else "" for which in ("model", "baseline")),
            Text("" if status.state == "failed" else note),
        )
    return table


def screen(grid: list[CellStatus], at_once: int, height: int) -> Group:
    """As much of the grid as fits on the screen: first the running and the failed cells, last the finished ones."""
    order = sorted(grid, key=lambda status: list(COLOURS).index(status.state))
    table = status_table(order[: max(3, height - 8)])
    hidden = len(grid) - table.row_count
    return Group(summary(grid, at_once), table, f"and {hidden} more" if hidden else "")


def follow(grid: list[CellStatus], at_once: int, console: Console, work: Callable[..., None]) -> None:
    """Show the grid while `work(show=...)` runs it: a live table in a terminal, else a line for each change."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            work(show=lambda: live.update(screen(grid, at_once, console.height), refresh=True))
        return
    before = {status.cell.name: (status.state, status.note) for status in grid}

    def print_changes() -> None:
        for status in grid:
            now = (status.state, status.note)
            if before[status.cell.name] != now:
                note = f" ({status.note})" if status.note else ""
                print(f"{time.strftime('%H:%M:%S')} {status.cell.name}: {status.state}{note}", flush=True)
                print(f"         {summary(grid, at_once)}", flush=True)
            before[status.cell.name] = now

    work(show=print_changes)


# The command


def list_cells(grid: list[CellStatus], dry_run: bool) -> None:
    """Print the number of cells, done and to do; of a dry run also their commands."""
    if dry_run:
        for status in grid:
            print(f"{'done ' if status.record else 'to do'} {shlex.join(status.cell.command)}")
    done = sum(status.record is not None for status in grid)
    print(f"{len(grid)} cells: {done} done, {len(grid) - done} to do")


def report(grid: list[CellStatus], at_once: int, console: Console) -> None:
    """Print the final state of all cells, why some failed, and the jobs that are left in the queue."""
    print(f"\n{summary(grid, at_once)}")
    console.print(status_table(grid))
    for status in grid:
        if status.state == "failed":
            print(f"failed: {status.cell.name}: {status.note}\n    see {status.cell.state_file('log')}")
    jobs = [status.attempt.job.job_id for status in grid if isinstance(status.attempt, ClusterJob)]
    if jobs:
        print(f"jobs that stay in the queue, where the same command finds them: {' '.join(jobs)}")


def main(settings: Sweep, rest: list[str]) -> None:
    """Run the sweep; ends the process with an exit status other than 0 if a cell is not done."""
    check(settings)
    common = rest[1:]
    if "--estimate" in common:
        raise BadInput("--estimate: comes before --, and then prints the cost of all cells")
    launch = shlex.split(settings.launch) if settings.launch else [sys.executable]
    cells = cells_of(settings.vary, common, launch, settings.out)
    at_once = settings.at_once or (len(cells) if settings.cluster else 1)
    check_common(settings.out, common)
    grid = [CellStatus(cell, "done" if (record := cell.record()) else "waiting", record=record) for cell in cells]
    list_cells(grid, settings.dry_run)
    console = Console()
    if not console.is_terminal:  # the lines of a file are as long as they need to be
        console = Console(width=100 + max(len(cell.name) for cell in cells))
    if settings.estimate and (remaining := [status.cell for status in grid if not status.record]):
        print_costs(remaining, at_once, console)
    if settings.dry_run or settings.estimate:
        return

    with stop_signals() as stop:
        place = cluster_of(settings) if settings.cluster else LocalMachine(at_once, stop)
        prepare(settings.out, common)
        follow(grid, at_once, console, partial(run_grid, grid, place, at_once, settings.tries, stop))
        received = stop[:1]
    report(grid, at_once, console)
    if received:
        sys.exit(128 + received[0])
    if any(status.state != "done" for status in grid):
        sys.exit(1)


def dashes(words: Sequence[str]) -> int:
    """The place of --, after which comes the command that all runs share."""
    return words.index("--") if "--" in words else len(words)


command = Command(Sweep, main, rest_at=dashes)

if __name__ == "__main__":
    command()
