"""Assemble the Space as a folder, and with --push upload it to the Hub, where it starts.

    hf-galaxy space --out runs/space
    hf-galaxy space --out runs/space --push ORG/NAME

The folder does not need the repository: `pip install -r runs/space/requirements.txt`, `python runs/space/app.py`.
"""

from dataclasses import dataclass
from pathlib import Path

from hf_galaxy.command_line import Command, OutputPath, PushTo
from hf_galaxy.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Check the app, its models and its card, copy them with the package and the results that it shows, and upload the copy."""

    out: OutputPath = Path("runs/space")
    """Output folder; an earlier Space in it is replaced."""
    push: PushTo = None
    """Upload it to the Hub as this ORG/NAME, and remove other files there."""


def main(settings: Publish) -> None:
    from hf_galaxy.files import only_writer_of
    from hf_galaxy.publishing import hub, space

    if settings.push:
        hub.check_repo_name(settings.push)
    if not (ROOT / space.APP).is_dir():
        raise BadInput(
            f"the app, {space.APP}/, is not part of the installed package: clone the repository, and run hf-galaxy space in it"
        )
    files = space.files_of(ROOT)
    space.assemble(files, settings.out)
    size = sum(file.stat().st_size for file in files.values())
    print(f"{settings.out}: {len(files)} files, {size / 1e6:.0f} MB; python {settings.out / 'app.py'} starts it")
    if settings.push:
        with only_writer_of(settings.out):
            print(f"pushed to {hub.push(settings.out, settings.push, 'space')}")


command = Command(Publish, main)

if __name__ == "__main__":
    command()
