"""Make a finished run ready for others, and with --push upload its folder to the Hub as it is.

    python scripts/publish_model.py --run runs/survey
    python scripts/publish_model.py --run runs/survey --license cc-by-nc-sa-4.0 --push ORG/NAME

Afterwards `AutoModel.from_pretrained("ORG/NAME")` loads it, and `--start ORG/NAME` trains on from it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from hf_galaxy.command_line import run
from hf_galaxy.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Check a run folder, make its card and figures anew, and upload it. A card that a person edited stays as it is."""

    run: Path
    """The run folder."""
    push: str | None = None
    """Upload it to the Hub as this ORG/NAME; the same command goes on where an upload broke off."""
    license: str | None = None
    """Of the weights, an identifier such as cc-by-nc-sa-4.0 (huggingface.co/docs/hub/repositories-licenses); by default what the card of the training data says of the data."""
    datasets: tuple[str, ...] = ()
    """Where on the Hub the training data stand, if the run learnt from a copy."""
    base_model: str | None = None
    """Where on the Hub the weights stand that it started from, if it started from a copy."""
    allow_pickle: tuple[str, ...] = ()
    """Pickles in the folder to upload, although they can run any code when loaded."""


def main(settings: Publish) -> None:
    # 1. Everything that could be wrong, before anything is changed.
    from transformers import AutoImageProcessor

    from hf_galaxy.models.start import load_run
    from hf_galaxy.publishing import hub
    from hf_galaxy.reports.card_data import licence
    from hf_galaxy.reports.run_folder import rewrite
    from hf_galaxy.reports.run_record import RunRecord

    if settings.push:
        hub.check_repo_name(settings.push)
    for option, names in (("--datasets", settings.datasets), ("--base-model", filter(None, [settings.base_model]))):
        for name in names:
            hub.check_repo_name(name, option)
    if settings.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", settings.license):
        raise BadInput(f"--license {settings.license}: is no identifier such as apache-2.0 or cc-by-nc-sa-4.0")
    record = RunRecord.load(settings.run)
    if record.finished:
        hub.check_run_files(settings.run, settings.allow_pickle)
    load_run(settings.run)
    try:
        AutoImageProcessor.from_pretrained(settings.run)
    except (OSError, ValueError) as error:
        raise BadInput(f"--run {settings.run}: its image processor cannot be loaded ({error})") from error
    chosen = {
        "repo": settings.push, "license": settings.license, "datasets": list(settings.datasets), "base_model": settings.base_model,
    }  # fmt: skip
    record.publication |= {name: value for name, value in chosen.items() if value}
    if settings.push and licence(record) is None:
        raise BadInput(
            "--license: the cards of the training data state none, or different ones; say which one the weights are to have "
            "(unknown is an answer, too)"
        )

    # 2. What people and the Hub read of it.
    if rewrite(settings.run, lambda now: now.publication.update(record.publication), redraw=True):
        print(f"{settings.run / 'README.md'}: made of {settings.run / 'run.json'}")
    else:
        print(f"{settings.run / 'README.md'}: stays as it is, as a person edited it; remove it to have a new one")

    # 3. The folder as it is.
    if settings.push:
        print(f"pushed to {hub.push(settings.run, settings.push, 'model')}")


def command() -> None:
    """Read the options from the command line, and run."""
    run(Publish, main)
