"""The folder of a run: who may write into it, what it branches off from, and what is in it at the end."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import IO

from hf_galaxy.errors import BadInput, InUse
from hf_galaxy.files import fsync_file, remove_partial, whole_file
from hf_galaxy.locks import lock_file, remove_lock
from hf_galaxy.reports.run_folder import LOCK, write_figures_and_card
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.training import checkpoints
from hf_galaxy.training.settings import NOT_PART_OF_RESULT, Settings, as_recorded

SAID = {"title", "cards"}  # of a dataset, by its card


def begin(settings: Settings, record: RunRecord, galaxies: int) -> IO:
    """Make the run folder, or find the unfinished run in it, with the checkpoint that it branches off from, if any.

    Args:
        galaxies: that are learnt from.

    Returns:
        What `save` is to be given: nobody else can claim the folder until then, or until the process ends.

    Raises:
        BadInput: as `claim` and `branch_point`.
    """
    trunk = None
    if settings.branch_of is not None and not checkpoints.list_checkpoints(
        settings.out
    ):  # else it has left the trunk behind
        trunk = branch_point(settings, record, galaxies)
    lock = claim(settings.out, record)
    if trunk is not None:
        try:
            with whole_file(settings.out / trunk.name.removeprefix("kept-")) as partial:
                shutil.copyfile(trunk, partial)
        except OSError as error:
            raise BadInput(f"--branch-of: {trunk} cannot be copied to {settings.out} ({error.strerror})") from error
    return lock


def claim(out: Path, record: RunRecord) -> IO:
    """Make the run folder, or make sure that the unfinished run in it is the same, and that nobody else trains it now.

    Returns:
        An open file: nobody else can claim the folder until it is closed, or the process ends in whatever way.

    Raises:
        BadInput: another run is there, or the folder cannot be written.
    """
    if (out / FILE).exists():
        _check_same(out, record)  # before anything in it is touched
    elif out.exists() and (not out.is_dir() or any(not file.name.startswith(".") for file in out.iterdir())):
        raise BadInput(f"--out {out}: exists and is no run folder; choose another")
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if (lock := lock_file(out / LOCK)) is None:
                raise InUse(f"--out {out}: another process is training this run now")
            stack.enter_context(lock)
            remove_partial(out.rglob("*"))
            if not (out / FILE).exists():
                record.save(out)
        except OSError as error:
            raise BadInput(f"--out {out}: cannot be written ({error.strerror})") from error
        earlier = _check_same(out, record)  # once more: it may have been finished since
        stack.pop_all()
    changed = {name: value for name, value in record.environment.items() if value != earlier.environment.get(name)}
    for name, value in changed.items():
        print(f"begun with {name} {earlier.environment.get(name)}, going on with {value}: not with the same bits")
    return lock


def _check_same(out: Path, record: RunRecord) -> RunRecord:
    """The run that is there; refused if it is another one."""
    earlier = RunRecord.load(out)
    if earlier.finished:
        left = checkpoints.list_checkpoints(out) or (out / LOCK).exists()
        if left and (lock := lock_file(out / LOCK)):
            _tidy(out, lock)
        raise BadInput(f"--out {out}: holds a finished run; choose another, or remove it")
    if differing := _differing(earlier, record):
        raise BadInput(
            f"--out {out}: holds an unfinished run with another {', '.join(differing)}; "
            "give the same to go on, choose another --out, or remove it"
        )
    return earlier


def _differing(earlier, record, but=()):
    """The options, as typed, in which two runs compute different things."""
    before = as_recorded(earlier.settings)
    names = [name for name, value in record.settings.items() if value != before.get(name)]
    differing = [f"--{name.replace('_', '-')}" for name in sorted(set(names) - NOT_PART_OF_RESULT - set(but))]
    # Its card may have been edited since: nothing is computed from that.
    if not differing and any(
        earlier.dataset.get(key) != value for key, value in record.dataset.items() if key not in SAID
    ):
        differing = ["content of --dataset than now"]
    return differing


def branch_point(settings: Settings, record: RunRecord, galaxies: int) -> Path:
    """The last checkpoint of another run, `settings.branch_of`, up to which both train the same way.

    Runs of different length with the schedule wsd do, until the shorter one cools down: what goes on from there ends, to the
    bit, like a training from its own beginning.

    Args:
        galaxies: that both learn from.

    Raises:
        BadInput: the other run is none of the same settings, or has no such checkpoint.
    """
    trunk = settings.branch_of
    earlier = RunRecord.load(trunk)
    length = ("epochs", "warmup", "cooldown", *(["patience"] if settings.schedule == "wsd" else []))
    if differing := _differing(earlier, record, but=length):
        raise BadInput(f"--branch-of {trunk}: was trained with another {', '.join(differing)}")
    other = replace(settings, **{name: earlier.settings[name] for name in length})
    lengths = settings.length(galaxies), other.length(galaxies)
    same = (
        settings.learning_rate_at(step, lengths[0]) == other.learning_rate_at(step, lengths[1])
        for step in range(settings.steps(galaxies))
    )
    common = min(sum(takewhile(bool, same)), other.steps(galaxies) - 1)  # at its last step it ended an epoch of its own
    if usable := [
        each for each in checkpoints.list_checkpoints(trunk, kept=True) if checkpoints.step_of(each) <= common
    ]:
        return usable[-1]
    raise BadInput(
        f"--branch-of {trunk}: has no checkpoint, kept by --keep-at, of the {common} steps in which its learning rates are "
        f"those of this run; with --schedule wsd, and warm-ups of equally many galaxies, these would be more"
    )


def save(model, weights: dict, record: RunRecord, out: Path, lock: IO) -> None:
    """Write the finished run: what is uploaded, unchanged.

    Args:
        weights: the model's, whole.
        lock: what `claim` returned.

    Raises:
        BadInput: it cannot be written; the same command tries again from the last checkpoint.
    """
    partial = out / ".saving"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, state_dict=weights)
        mode = (out / FILE).stat().st_mode  # safetensors lets nobody else read what it writes
        for file in partial.iterdir():
            file.chmod(mode)
            fsync_file(file)
            os.replace(file, out / file.name)
        partial.rmdir()
        write_figures_and_card(out, record)
    except Exception as error:  # safetensors has an exception of its own for a full disk
        raise BadInput(
            f"--out {out}: cannot be written ({error}); make room, and give the same command again"
        ) from error
    _tidy(out, lock)


def _tidy(out: Path, lock: IO[bytes]) -> None:
    """Remove what a finished run needs no more; also what stayed because it was killed at just this moment."""
    checkpoints.discard(out)
    remove_lock(lock)
