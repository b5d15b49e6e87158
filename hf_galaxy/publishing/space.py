"""The Space as a folder: the app, this package beside it, and what the app reads of the results. A plain upload of it runs."""

import shutil
from pathlib import Path

import yaml
from huggingface_hub import SpaceCard

from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new, replaced_folder
from hf_galaxy.models.start import load_run
from hf_galaxy.publishing.hub import pickles

APP, CARD, MODELS = "spaces_app", "README.md", "models"
# Of the results, what the app reads: studies of scaling, and the benchmark of starts.
RESULTS = ("*/scaling.json", "*/points.parquet", "downstream/benchmark.json", "downstream/results.json")
MADE = "<!-- Made by scripts/publish_space.py, which replaces it: write in spaces_app/ instead. -->"
MOST = 10**9  # bytes that the Hub stores of a Space for nothing
# What a card must say (huggingface.co/docs/hub/spaces-config-reference); more is allowed.
SAID = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license",
    "short_description",
}  # fmt: skip
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
MOST_DESCRIPTION = 60  # characters of short_description that the Hub takes


def files_of(root: Path) -> dict[str, Path]:
    """What the Space is made of: path in it -> file of the repository. Hidden files, compiled modules and the .pyi
    files that gradio writes beside modules are left out.

    Args:
        root: of the repository.
    """
    found = {}
    for top, folder in (("", root / APP), ("hf_galaxy", root / "hf_galaxy")):
        found |= {Path(top, file.relative_to(folder)).as_posix(): file for file in folder.rglob("*")}
    results = root / "results"
    for pattern in RESULTS:
        found |= {f"results/{file.relative_to(results).as_posix()}": file for file in results.glob(pattern)}
    unwanted = (".", "__pycache__")
    return {
        path: file
        for path, file in sorted(found.items())
        if file.is_file() and file.suffix != ".pyi" and not any(part.startswith(unwanted) for part in path.split("/"))
    }


def check(files: dict[str, Path]) -> None:
    """Refuse what would not run as a Space, or what nobody should be given.

    Args:
        files: as `files_of` gives them.

    Raises:
        BadInput: says what is wrong, and where; or as `load_run`.
    """
    for path in (CARD, "requirements.txt", "hf_galaxy/__init__.py"):
        if path not in files:
            raise BadInput(f"{APP}: has no {path}, without which a Space does not start")
    _check_card(files)
    if dangerous := pickles(files):
        raise BadInput(f"{files[dangerous[0]]}: can run anything when loaded; remove it")
    folders = {files[path].parent for path in files if path.startswith(f"{MODELS}/") and path.count("/") == 2}
    if not folders:
        raise BadInput(f"{APP}/{MODELS}: holds no run folder, so that the app has no model to ask")
    for folder in sorted(folders):
        if not list(folder.glob("model*.safetensors")):
            raise BadInput(f"{folder}: has no weights in safetensors; only such are published")
        load_run(folder)
    if (size := sum(file.stat().st_size for file in files.values())) > MOST:
        raise BadInput(
            f"{APP}: with all that it needs it has {size / 1e9:.1f} GB, and a Space may have {MOST / 1e9:g} GB"
        )


def _check_card(files):
    card = files[CARD]
    try:
        said = SpaceCard.load(card, ignore_metadata_errors=False).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{card}: its YAML header cannot be read ({' '.join(str(error).split())})") from error
    if missing := sorted(SAID - said.keys()):
        raise BadInput(f"{card}: its YAML header says no {missing[0]}")
    colors = f"is none of {', '.join(sorted(COLORS))}"
    rules = {
        "sdk": (said["sdk"] == "gradio", "is not gradio"),
        "colorFrom": (said["colorFrom"] in COLORS, colors),
        "colorTo": (said["colorTo"] in COLORS, colors),
        "app_file": (said["app_file"] in files, f"is not in {APP}"),
        "python_version": (isinstance(said["python_version"], str), "is not in quotes, and 3.10 would be 3.1"),
        "short_description": (
            len(said["short_description"]) <= MOST_DESCRIPTION,
            f"is longer than {MOST_DESCRIPTION} letters",
        ),
    }
    for name, (holds, what) in rules.items():
        if not holds:
            raise BadInput(f"{card}: {name}: {said[name]} {what}")


def check_folder(out: Path) -> None:
    """Refuse a folder that is something else than an earlier Space.

    Raises:
        BadInput: says so, or that the folder cannot be made.
    """
    card = out / CARD
    if not (card.is_file() and MADE.encode() in card.read_bytes()):
        check_new(out)


def assemble(files: dict[str, Path], out: Path) -> None:
    """Write the folder; an earlier one is replaced when all is written.

    Args:
        files: as `files_of` gives them.

    Raises:
        BadInput: as `check` and `check_folder`; or it cannot be written.
    """
    check(files)
    check_folder(out)
    try:
        with replaced_folder(out.resolve()) as folder:
            for path, file in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / path)
            with open(folder / CARD, "a") as card:
                card.write(f"\n{MADE}\n")
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error})") from error
