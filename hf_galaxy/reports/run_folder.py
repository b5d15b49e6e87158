"""A finished run's folder, rewritten after a new measurement: its record, its figures and its card."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from hf_galaxy.errors import unwritable
from hf_galaxy.files import remove_partial, whole_file
from hf_galaxy.locks import locked
from hf_galaxy.reports import card_data, model_card, run_figures
from hf_galaxy.reports.run_record import FILE, RunRecord, reading

LOCK, CARD = ".lock", "README.md"


def rewrite(out: Path, change: Callable[[RunRecord], None], redraw: bool = False) -> bool:
    """Change the record of a run, and remake its figures, and its card unless a person edited it.

    Args:
        change: changes the record that it is called with.
        redraw: redraw the figures even if their numbers have not changed.

    Returns:
        Whether the card was remade; otherwise a person edited it.

    Raises:
        BadInput: there is no run, or it cannot be written.
    """
    RunRecord.load(out)  # before anything in the folder is touched
    try:
        # Two processes that change the same record must not undo each other's changes.
        with locked(out / LOCK), reading(out / FILE):
            return _rewrite(out, change, redraw)
    except OSError as error:
        raise unwritable(out, error) from error


def _rewrite(out: Path, change: Callable[[RunRecord], None], redraw: bool) -> bool:
    """As `rewrite`, under the lock of the folder."""
    remove_partial(out.rglob("*"))
    before, record = RunRecord.load(out), RunRecord.load(out)
    ours = card_is_ours(out / CARD, before)
    change(record)
    # First, so that after an interruption the record still names the files to remove.
    for path in card_data.eval_results(before).keys() - card_data.eval_results(record).keys():
        (out / path).unlink(missing_ok=True)
    record.save(out)  # with the mark of the card before, which is recognised by it after an interruption
    drawn = [(each.training, run_figures.calibration_of(each)) for each in (before, record)]
    write_figures_and_card(out, record, card=ours, figures=redraw or drawn[0] != drawn[1])
    return ours


def card_is_ours(card: Path, record: RunRecord) -> bool:
    """Whether a card was made from the record and not edited since, or was removed."""
    if not card.exists():
        return True
    text = card.read_bytes()
    return _mark_of(text) == record.card or text == model_card.model_card(record).encode()


def _mark_of(card: bytes) -> str:
    return hashlib.sha256(card).hexdigest()


def write_figures_and_card(out: Path, record: RunRecord, card: bool = True, figures: bool = True) -> None:
    """Write the results as the Hub reads them, the figures and the card beside the record, with the mark of the card in it."""
    files = {path: text.encode() for path, text in card_data.eval_results(record).items()}
    if figures:
        files |= run_figures.figures(record)
        for path in {run_figures.LOSS, run_figures.CALIBRATION} - files.keys():
            (out / path).unlink(missing_ok=True)
    if card:
        files[CARD] = model_card.model_card(record).encode()
    for path, content in files.items():
        if not (out / path).exists() or (out / path).read_bytes() != content:
            with whole_file(out / path) as partial:
                partial.write_bytes(content)
    if card:
        record.card = _mark_of(files[CARD])
    record.save(out)  # last, as it says that the others are complete
