"""Prepare a finished run for publication, and with --push upload its folder to the Hub.

    hf-galaxy push --run runs/survey
    hf-galaxy push --run runs/survey --license cc-by-nc-sa-4.0 --push ORG/NAME

Afterwards `AutoModel.from_pretrained("ORG/NAME")` loads it, and `--start ORG/NAME` continues training from it.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from hf_galaxy.command_line import Command, PushTo, RunFolder
from hf_galaxy.errors import BadInput
from hf_galaxy.files import only_writer_of


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Check a run folder, update its card and figures, and upload it. A card that a person edited is not changed."""

    run: RunFolder
    """The run folder."""
    push: PushTo = None
    """Upload it to the Hub as this ORG/NAME; an interrupted upload resumes when the command is run again."""
    license: str | None = None
    """License of the weights, an identifier such as cc-by-nc-sa-4.0 (huggingface.co/docs/hub/repositories-licenses); by default that of the training data, from its card."""
    datasets: tuple[str, ...] = ()
    """Hub ids of the training data, if the run used a local copy."""
    base_model: str | None = None
    """Hub id of the weights that the run started from, if it used a local copy."""
    allow_pickle: tuple[str, ...] = ()
    """Pickles in the folder to upload, although they can run any code when loaded."""


class Published(NamedTuple):
    """What was done with a run folder.

    Attributes:
        card_written: False if a person edited the card, which was then not changed.
        address: of the repository; None if it was not uploaded.
    """

    card_written: bool
    address: str | None


def publish(settings: Publish) -> Published:
    """Check a run folder, update its card and figures, and upload it.

    Raises:
        BadInput: it cannot be published as it is, or the Hub refused.
    """
    # 1. Check everything before anything is changed.
    from transformers import AutoImageProcessor

    from hf_galaxy.models.start import load_run
    from hf_galaxy.publishing import hub
    from hf_galaxy.reports.card_data import licence
    from hf_galaxy.reports.run_folder import rewrite
    from hf_galaxy.reports.run_record import FILE, RunRecord, reading

    if settings.push:
        hub.check_repo_name(settings.push)
    for option, names in (("--datasets", settings.datasets), ("--base-model", filter(None, [settings.base_model]))):
        for name in names:
            hub.check_repo_name(name, option)
    if settings.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", settings.license):
        raise BadInput(f"--license {settings.license}: is not an identifier such as apache-2.0 or cc-by-nc-sa-4.0")
    record = RunRecord.load(settings.run)
    if record.finished:
        hub.check_run_files(settings.run, settings.allow_pickle)
    load_run(settings.run)
    try:
        AutoImageProcessor.from_pretrained(settings.run)
    except Exception as error:  # transformers raises many kinds about what others have written
        raise BadInput(f"--run {settings.run}: its image processor cannot be loaded ({error})") from error
    chosen = {
        "repo": settings.push, "license": settings.license, "datasets": list(settings.datasets), "base_model": settings.base_model,
    }  # fmt: skip
    record.publication |= {name: value for name, value in chosen.items() if value}
    with reading(settings.run / FILE):
        license = licence(record)
    if settings.push and license is None:
        raise BadInput(
            "--license: the cards of the training data state no license, or different ones; choose that of the weights "
            "(unknown is possible too)"
        )

    with only_writer_of(settings.run, "wait for it"):  # another push may write another name into the card
        # 2. Update the card and the figures.
        written = rewrite(settings.run, lambda now: now.publication.update(record.publication), redraw=True)

        # 3. Upload the folder.
        return Published(written, hub.push(settings.run, settings.push, "model") if settings.push else None)


def main(settings: Publish) -> None:
    published = publish(settings)
    if published.card_written:
        print(f"{settings.run / 'README.md'}: written from {settings.run / 'run.json'}")
    else:
        print(f"{settings.run / 'README.md'}: not changed, since a person edited it; remove it to write a new one")
    if published.address:
        print(f"pushed to {published.address}")


command = Command(Publish, main)

if __name__ == "__main__":
    command()
