"""The folder of a run: who may write into it, what it branches off from, and what is in it at the end."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import IO

from hf_galaxy import card_data, cards, checkpoints, run_figures
from hf_galaxy.atomic import fsync_file, remove_partial, whole_file
from hf_galaxy.errors import BadInput
from hf_galaxy.locks import lock_file, locked, remove_lock
from hf_galaxy.run_record import FILE, RunRecord
from hf_galaxy.settings import NOT_PART_OF_RESULT, Settings, as_recorded

LOCK, CARD = ".lock", "README.md"
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
                raise BadInput(f"--out {out}: another process is training this run now")
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


def rewrite(out: Path, change: Callable[[RunRecord], None], redraw: bool = False) -> bool:
    """Change the record of a run, and what is made of it: its card, unless a person edited it, and its figures.

    Args:
        redraw: make the figures again even if what they show has not changed.

    Returns:
        Whether the card is that of the record now, not a person's.

    Raises:
        BadInput: there is no run, or it cannot be written.
    """
    RunRecord.load(out)  # before anything in the folder is touched
    try:
        with locked(out / LOCK):  # two processes that change the same record must not undo each other's changes
            return _rewrite(out, change, redraw)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from error


def _rewrite(out: Path, change: Callable[[RunRecord], None], redraw: bool) -> bool:
    """As `rewrite`, while nobody else writes."""
    remove_partial(out.rglob("*"))
    before, record = RunRecord.load(out), RunRecord.load(out)
    ours = card_is_ours(out / CARD, before)
    change(record)
    # First of all: where this is cut off, the record still says which file is not to stay.
    for path in card_data.eval_results(before).keys() - card_data.eval_results(record).keys():
        (out / path).unlink(missing_ok=True)
    record.save(out)  # with the mark of the card as it was, so that one that is cut off here is still known
    shown = [(each.training, run_figures.calibration_of(each)) for each in (before, record)]
    write_figures_and_card(out, record, card=ours, drawn=redraw or shown[0] != shown[1])
    return ours


def card_is_ours(card, record):
    """Whether a card was made of the record and not touched since, or removed."""
    if not card.exists():
        return True
    text = card.read_bytes()
    return _mark_of(text) == record.card or text == cards.model_card(record).encode()


def _mark_of(card):
    return hashlib.sha256(card).hexdigest()


def write_figures_and_card(out, record, card=True, drawn=True):
    """What is made of the record, beside it: the figures, the results as the Hub reads them, and the card; marks the card."""
    files = {path: text.encode() for path, text in card_data.eval_results(record).items()}
    if drawn:
        files |= run_figures.figures(record)
        for path in {run_figures.LOSS, run_figures.CALIBRATION} - files.keys():
            (out / path).unlink(missing_ok=True)
    if card:
        files[CARD] = cards.model_card(record).encode()
    for path, content in files.items():
        if not (out / path).exists() or (out / path).read_bytes() != content:
            with whole_file(out / path) as partial:
                partial.write_bytes(content)
    if card:
        record.card = _mark_of(files[CARD])
    record.save(out)  # last of all: it says that the others are complete


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
