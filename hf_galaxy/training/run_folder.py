"""The folder of a run: its lock, the checkpoint that it branches off from, and its files at the end."""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import torch

from hf_galaxy.errors import BadInput, InUse, Occupied, unwritable
from hf_galaxy.files import fsync_file, only_writer_of, remove_partial, tidy, whole_file
from hf_galaxy.locks import lock_file, remove_lock
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.reports.run_folder import LOCK, write_figures_and_card
from hf_galaxy.reports.run_record import FILE, RunRecord, digests_of
from hf_galaxy.training import checkpoints
from hf_galaxy.training.checkpoint_files import list_checkpoints, step_of
from hf_galaxy.training.context import RunContext
from hf_galaxy.training.processes import on_main_process, start_tracker, stop_tracker
from hf_galaxy.training.settings import NOT_PART_OF_RESULT, Settings, as_recorded

FROM_CARD = {"title", "cards"}  # of a dataset; no result depends on them

logger = logging.getLogger(__name__)


@contextmanager
def claimed_folder(context: RunContext, record: RunRecord) -> Iterator[IO[bytes] | None]:
    """Claim the run folder, and start the tracker; both are released at the end, also when training raises.

    Returns:
        The lock, for `save`; None in all processes but the first.

    Raises:
        BadInput: as `begin`.
    """
    settings, accelerator = context.settings, context.accelerator
    with ExitStack() as stack:
        lock = on_main_process(accelerator, begin, settings, record, context.sources.count("train"))
        stack.enter_context(lock or nullcontext())
        if settings.tracker is not None:
            stack.callback(stop_tracker, accelerator)
            start_tracker(accelerator, settings.tracker, settings.out, vars(settings))
        yield lock


def begin(settings: Settings, record: RunRecord, galaxies: int) -> IO[bytes]:
    """Make the run folder, or claim the unfinished run in it; with the checkpoint that it branches off from, if any.

    Args:
        galaxies: in the training set.

    Returns:
        The lock, for `save`: no other process can claim the folder while it is open.

    Raises:
        BadInput: as `claim` and `branch_point`.
    """
    source = None
    if settings.branch_of is not None and not list_checkpoints(settings.out):  # else it has branched off already
        source = branch_point(settings.branch_of, settings, record, galaxies)
    lock = claim(settings.out, record)
    if source is not None:
        try:
            with whole_file(settings.out / source.name.removeprefix("kept-")) as partial:
                shutil.copyfile(source, partial)
        except OSError as error:
            raise BadInput(f"--branch-of: {source} cannot be copied to {settings.out} ({error.strerror})") from error
    return lock


def claim(out: Path, record: RunRecord) -> IO[bytes]:
    """Make the run folder, or check that the unfinished run in it is the same, and that no other process trains it now.

    Returns:
        The lock: no other process can claim the folder until it is closed, or this process ends.

    Raises:
        BadInput: another run is there, or the folder cannot be written.
        InUse: another command trains this run, or writes something else there.
    """
    check_folder(out, record)  # before anything in it is touched
    with ExitStack() as stack:
        try:
            if not out.exists():
                with only_writer_of(
                    out
                ):  # not while another command, such as a publication, makes a folder of this name
                    out.mkdir(parents=True, exist_ok=True)
            else:
                tidy(out)
            if (lock := lock_file(out / LOCK)) is None:
                raise InUse(
                    f"--out {out}: another command trains this run at this moment; wait for it, or choose another --out"
                )
            stack.enter_context(lock)
            remove_partial(out.rglob("*"))
            if not (out / FILE).exists():
                record.save(out)
        except OSError as error:
            raise unwritable(f"--out {out}:", error) from error
        earlier = _check_same(out, record)  # once more: it may have been finished since
        stack.pop_all()
    changed = {name: value for name, value in record.environment.items() if value != earlier.environment.get(name)}
    for name, value in changed.items():
        logger.warning(
            "started with %s %s, resuming with %s: the weights will not be the same to the bit",
            name, earlier.environment.get(name), value,
        )  # fmt: skip
    return lock


def check_folder(out: Path, record: RunRecord) -> None:
    """Refuse a folder that no run can be trained in: only a new one, or that of the unfinished run itself.

    Args:
        record: of the run; its settings and its dataset count.

    Raises:
        Occupied: another run is there, or this one, finished, or something else.
    """
    if (out / FILE).exists():
        _check_same(out, record)
    elif out.exists() and (not out.is_dir() or any(not file.name.startswith(".") for file in out.iterdir())):
        raise Occupied(f"--out {out}: exists and is no run folder; choose another")


def _check_same(out: Path, record: RunRecord) -> RunRecord:
    """The record of the run in a folder, which must be unfinished and have the same settings."""
    earlier = RunRecord.load(out)
    differing = _differing(earlier, record)
    if earlier.finished:
        left = list_checkpoints(out) or (out / LOCK).exists()
        if left and (lock := lock_file(out / LOCK)):
            _tidy(out, lock)
        raise Occupied(f"--out {out}: holds a finished run; choose another, or remove it", same=not differing)
    if differing:
        raise Occupied(
            f"--out {out}: holds an unfinished run with another {', '.join(differing)}; "
            "give the same to resume it, choose another --out, or remove it"
        )
    return earlier


def _differing(earlier: RunRecord, record: RunRecord, ignore: Sequence[str] = ()) -> list[str]:
    """The options, as typed, that make the results of two runs differ, with the values of the earlier one."""
    before, now = (as_recorded(each.settings) for each in (earlier, record))
    names = [name for name in record.settings if now[name] != before.get(name)]
    differing = [
        f"--{name.replace('_', '-')}"
        + (f" ({value})" if isinstance(value := before.get(name), str | int | float) else "")
        for name in sorted(set(names) - NOT_PART_OF_RESULT - set(ignore))
    ]
    if not differing:
        # Records of earlier versions do not have the bytes of the files.
        compared = record.dataset.keys() - FROM_CARD - ({"bytes"} - earlier.dataset.keys())
        changed = any(earlier.dataset.get(key) != record.dataset[key] for key in compared)
        if changed or not _alike(earlier.baseline, record.baseline):
            differing = ["content of --dataset than now"]
    return differing


def _alike(one: Any, other: Any) -> bool:
    """Whether two baselines are the same, which machines may compute with other roundings; one may not be known yet."""
    if not one or not other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


def branch_point(trunk: Path, settings: Settings, record: RunRecord, galaxies: int) -> Path:
    """The last checkpoint of another run, `trunk`, up to which both take the same steps.

    Runs of different length with the schedule wsd do, until the shorter one cools down: a run that resumes from there ends, to the
    bit, with the weights of a run of its own from the beginning.

    Args:
        galaxies: in the training set of both.

    Raises:
        BadInput: the other run has other settings, or no such checkpoint.
    """
    earlier = RunRecord.load(trunk)
    length = ("epochs", "warmup", "cooldown", *(["patience"] if settings.schedule == "wsd" else []))
    if differing := _differing(earlier, record, ignore=length):
        raise BadInput(f"--branch-of {trunk}: was trained with another {', '.join(differing)}")
    other = replace(settings, **{name: earlier.settings[name] for name in length})
    lengths = settings.length(galaxies), other.length(galaxies)
    same = (
        settings.learning_rate_at(step, lengths[0]) == other.learning_rate_at(step, lengths[1])
        for step in range(settings.steps(galaxies))
    )
    common = min(sum(takewhile(bool, same)), other.steps(galaxies) - 1)  # at its last step it ended an epoch of its own
    if usable := [each for each in list_checkpoints(trunk, kept=True) if step_of(each) <= common]:
        return usable[-1]
    raise BadInput(
        f"--branch-of {trunk}: has no checkpoint, kept by --keep-at, among the {common} steps in which both runs have the same "
        "learning rates; with --schedule wsd, and warm-ups of equally many galaxies, there are more such steps"
    )


def save(
    model: GalaxyPreTrainedModel, weights: dict[str, torch.Tensor], record: RunRecord, out: Path, lock: IO[bytes]
) -> None:
    """Write the finished run, as it is uploaded.

    Args:
        weights: the model's, whole.
        lock: of `claim`.

    Raises:
        BadInput: it cannot be written; the same command tries again from the last checkpoint.
    """
    partial = out / ".saving"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, state_dict=weights)
        record.model["weights"] = digests_of(partial)
        mode = (out / FILE).stat().st_mode  # safetensors lets nobody else read what it writes
        for file in partial.iterdir():
            file.chmod(mode)
            fsync_file(file)
            os.replace(file, out / file.name)
        partial.rmdir()
        write_figures_and_card(out, record)
    except Exception as error:  # safetensors has an exception of its own for a full disk
        raise unwritable(f"--out {out}:", error) from error
    _tidy(out, lock)


def _tidy(out: Path, lock: IO[bytes]) -> None:
    """Remove checkpoints and the lock of a finished run, also of one that was killed at just this moment."""
    checkpoints.discard(out)
    remove_lock(lock)
