"""Assemble the Space as a folder, and with --push upload it to the Hub, where it starts.

    python scripts/publish_space.py --out runs/space
    python scripts/publish_space.py --out runs/space --push ORG/NAME

The folder does not need the repository: `pip install -r runs/space/requirements.txt`, `python runs/space/app.py`.
"""

from dataclasses import dataclass
from pathlib import Path

from hf_galaxy.command_line import run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Check the app, its models and its card, copy them with the package and the results that it shows, and upload the copy."""

    out: Path = Path("runs/space")
    """Output folder; an earlier Space in it is replaced."""
    push: str | None = None
    """Upload it to the Hub as this ORG/NAME, and remove other files there."""


def main(settings: Publish) -> None:
    from hf_galaxy.publishing import hub, space

    if settings.push:
        hub.check_repo_name(settings.push)
    files = space.files_of(ROOT)
    space.assemble(files, settings.out)
    size = sum(file.stat().st_size for file in files.values())
    print(f"{settings.out}: {len(files)} files, {size / 1e6:.0f} MB; python {settings.out / 'app.py'} starts it")
    if settings.push:
        print(f"pushed to {hub.push(settings.out, settings.push, 'space')}")


def command() -> None:
    """Read the options from the command line, and run."""
    run(Publish, main)
