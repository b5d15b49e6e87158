"""A published folder goes to the Hub, byte for byte."""

import json
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from hf_galaxy.atomic import whole_file, write_json
from hf_galaxy.errors import BadInput
from hf_galaxy.publish import CROISSANT, STATISTICS


def rename(folder: Path, repo: str, command: str) -> None:
    """Let a published folder call itself by its name on the Hub.

    Raises:
        BadInput: another command published it.
    """
    said = json.loads((folder / STATISTICS).read_text())
    if said["command"] != command:
        raise BadInput(
            f"{folder} was published by another command ({said['command']}); push it with that, or remove it"
        )
    if said["name"] != repo:
        card = folder / "README.md"
        text = card.read_text()
        for quoted in ('load_dataset("{}"', "--dataset {} "):
            text = text.replace(quoted.format(said["name"]), quoted.format(repo))
        with whole_file(card) as partial:
            partial.write_text(text)
        described = json.loads((folder / CROISSANT).read_text())
        write_json(folder / CROISSANT, described | {"url": f"https://huggingface.co/datasets/{repo}"})
        write_json(folder / STATISTICS, said | {"name": repo})


def push(folder: Path, repo: str) -> str:
    """Upload a published folder to the Hub, byte for byte; what an interrupted upload has sent is not sent again.

    Returns:
        Its address.

    Raises:
        BadInput: the Hub refused, or cannot be reached.
    """
    api, upload = HfApi(), {"folder_path": folder, "repo_id": repo, "repo_type": "dataset"}
    try:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        # The card comes last: with it the dataset appears, and a large upload is more than one commit. What an earlier
        # version of the dataset has left in its folders goes with that.
        api.upload_folder(**upload, ignore_patterns="README.md", commit_message=f"Publish {folder.name}: data")
        stale = ["data/*", "tiny/*", "native/*"]
        commit = api.upload_folder(**upload, delete_patterns=stale, commit_message=f"Publish {folder.name}")
        return str(commit.repo_url)
    except (HTTPError, RuntimeError, OSError, ValueError) as error:  # a file that could not be sent: RuntimeError
        reason = " ".join(str(error.__cause__ or error).split())
        raise BadInput(
            f"--push {repo}: {reason} (the dataset is whole in {folder}; the same command pushes what is missing)"
        ) from error


def check_repo_name(repo: str) -> None:
    """Refuse what is no ORG/NAME, before anything is made for it."""
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise BadInput(f"--push {repo}: is no ORG/NAME ({error})") from error
