"""The Space as a folder: the app, this package, and the results that the app reads. Uploaded as it is, it runs."""

import shutil
from pathlib import Path

import yaml
from huggingface_hub import SpaceCard

from hf_galaxy.errors import BadInput, unwritable
from hf_galaxy.files import check_new, replaced_folder
from hf_galaxy.models.start import load_run
from hf_galaxy.publishing.hub import pickles
from hf_galaxy.reports.records_file import FILE as RECORDS

APP, CARD, MODELS = "spaces_app", "README.md", "models"
MARK = "<!-- Made by hf-galaxy space, which replaces it: write in spaces_app/ instead. -->"
MAX_BYTES = 10**9  # that the Hub stores of a free Space
# Fields that a card must have (huggingface.co/docs/hub/spaces-config-reference); others are allowed.
REQUIRED = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license",
    "short_description",
}  # fmt: skip
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
MAX_DESCRIPTION = 60  # characters of short_description that the Hub accepts


def files_of(root: Path) -> dict[str, Path]:
    """The files of the Space: path in the Space -> file of the repository.

    Hidden files, compiled modules and the .pyi files that gradio writes beside modules are left out.

    Args:
        root: folder of the repository.
    """
    files: dict[str, Path] = {}
    for top, folder in (("", root / APP), ("hf_galaxy", root / "hf_galaxy")):
        files |= {Path(top, file.relative_to(folder)).as_posix(): file for file in folder.rglob("*")}
    files |= {file.relative_to(root).as_posix(): file for file in results_of(root / "results")}
    unwanted = (".", "__pycache__")
    return {
        path: file
        for path, file in sorted(files.items())
        if file.is_file() and file.suffix != ".pyi" and not any(part.startswith(unwanted) for part in path.split("/"))
    }


def results_of(folder: Path) -> list[Path]:
    """The results that the app reads: scaling studies with the records of their runs, and the downstream benchmark."""
    studies = list(folder.glob("*/scaling.json"))
    benchmark = [folder / "downstream" / name for name in ("benchmark.json", "results.json")]
    return [*studies, *(study.with_name(RECORDS) for study in studies), *benchmark]


def check(files: dict[str, Path]) -> None:
    """Refuse files that would not run as a Space, or that should not be published.

    Args:
        files: as of `files_of`.

    Raises:
        BadInput: names the file and the problem; or as `load_run`.
    """
    for path in (CARD, "requirements.txt", "hf_galaxy/__init__.py"):
        if path not in files:
            raise BadInput(f"{APP}: has no {path}, without which a Space does not start")
    _check_card(files)
    if dangerous := pickles(files):
        raise BadInput(f"{files[dangerous[0]]}: can run any code when loaded; remove it")
    folders = {files[path].parent for path in files if path.startswith(f"{MODELS}/") and path.count("/") == 2}
    if not folders:
        raise BadInput(f"{APP}/{MODELS}: has no run folder, so the app has no model")
    for folder in sorted(folders):
        if not list(folder.glob("model*.safetensors")):
            raise BadInput(f"{folder}: has no weights in safetensors, the only format that is published")
        load_run(folder)
    if (size := sum(file.stat().st_size for file in files.values())) > MAX_BYTES:
        raise BadInput(
            f"{APP}: with all files that it needs it has {size / 1e9:.1f} GB; a Space may have {MAX_BYTES / 1e9:g} GB"
        )


def _check_card(files: dict[str, Path]) -> None:
    card = files[CARD]
    try:
        header = SpaceCard.load(card, ignore_metadata_errors=False).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{card}: its YAML header cannot be read ({' '.join(str(error).split())})") from error
    if missing := sorted(REQUIRED - header.keys()):
        raise BadInput(f"{card}: its YAML header has no {missing[0]}")
    colors = f"is not one of {', '.join(sorted(COLORS))}"
    rules = {
        "sdk": (header["sdk"] == "gradio", "is not gradio"),
        "colorFrom": (header["colorFrom"] in COLORS, colors),
        "colorTo": (header["colorTo"] in COLORS, colors),
        "app_file": (header["app_file"] in files, f"is not in {APP}"),
        "python_version": (isinstance(header["python_version"], str), "is not in quotes, and 3.10 would be 3.1"),
        "short_description": (
            len(header["short_description"]) <= MAX_DESCRIPTION,
            f"is longer than {MAX_DESCRIPTION} characters",
        ),
    }
    for name, (valid, problem) in rules.items():
        if not valid:
            raise BadInput(f"{card}: {name}: {header[name]} {problem}")


def check_folder(out: Path) -> None:
    """Refuse a folder that exists and is not an earlier Space.

    Raises:
        BadInput: it is another folder, or it cannot be made.
    """
    card = out / CARD
    if not (card.is_file() and MARK.encode() in card.read_bytes()):
        check_new(out)


def assemble(files: dict[str, Path], out: Path) -> None:
    """Write the folder; an earlier one is replaced once everything is written.

    Args:
        files: as of `files_of`.

    Raises:
        BadInput: as of `check` and `check_folder`; or the folder cannot be written.
    """
    check(files)
    check_folder(out)
    try:
        with replaced_folder(out.resolve()) as folder:
            for path, file in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / path)
            with open(folder / CARD, "a", encoding="utf-8") as card:
                card.write(f"\n{MARK}\n")
    except OSError as error:
        raise unwritable(f"--out {out}:", error) from error
