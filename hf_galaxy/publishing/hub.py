"""A published folder goes to the Hub, byte for byte: a dataset's, that of a run, or a Space."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects, validate_repo_id

from hf_galaxy.data.card_facts import CROISSANT, STATISTICS
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file, write_json

# What an earlier version of a repository may have had more of, and must not keep.
STALE = {
    "dataset": ["data/*", "tiny/*", "native/*"],
    "model": ["*.safetensors", "figures/*", ".eval_results/*"],
    "space": ["*"],
}
# Of a run folder, what training needs to go on or to branch off, and nobody who uses the model.
OF_TRAINING = (".lock", ".saving*", "*.partial", "checkpoint-*.pt", "kept-checkpoint-*.pt")
# Loading one can run what it likes. That of .npy and .npz cannot: NumPy refuses pickles in them unless it is asked not to.
PICKLES = {"bin", "pth", "pt", "pkl", "pickle", "dill", "ckpt", "joblib"}


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


def check_run_files(run: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a run folder whose weights are not safetensors, or of which pickles would be uploaded.

    Args:
        allowed: pickles that are meant to be uploaded, by their paths in the folder.

    Raises:
        BadInput: names them.
    """
    if not list(run.glob("model*.safetensors")):
        raise BadInput(f"--run {run}: has no weights in safetensors; only such are published")
    uploaded = _uploaded(run)
    if missing := sorted(set(allowed) - uploaded):
        raise BadInput(f"--allow-pickle {missing[0]}: there is no such file in {run}, of those that are uploaded")
    if dangerous := pickles(uploaded - set(allowed)):
        raise BadInput(
            f"--run {run}: {', '.join(dangerous)} can run anything when loaded; remove it, or name it with --allow-pickle"
        )


def pickles(paths: Iterable[str]) -> list[str]:
    """Those that can run anything when loaded. Any suffix counts, for x.pkl.gz is one, too."""
    return sorted(path for path in paths if PICKLES & {*path.split("/")[-1].lower().split(".")[1:]})


def _uploaded(run):
    """Paths of what `push` sends of a run folder, in the words of its `upload_folder`."""
    paths = [file.relative_to(run).as_posix() for file in run.glob("**/*") if file.is_file()]
    return set(filter_repo_objects(paths, ignore_patterns=[*OF_TRAINING, *DEFAULT_IGNORE_PATTERNS]))


def push(folder: Path, repo: str, kind: Literal["dataset", "model", "space"] = "dataset") -> str:
    """Upload a published folder to the Hub, byte for byte; what an interrupted upload has sent is not sent again.

    Args:
        kind: of a model's folder, which is that of a run, what only its training needs stays here (`OF_TRAINING`). A
            Space runs on Gradio, and has nothing but what is in the folder.

    Returns:
        Its address.

    Raises:
        BadInput: the Hub refused, or cannot be reached.
    """
    api, upload = HfApi(), {"folder_path": folder, "repo_id": repo, "repo_type": kind}
    private = [*OF_TRAINING] if kind == "model" else []
    try:
        api.create_repo(repo, repo_type=kind, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
        # The card comes last: with it the repository appears, and a large upload is more than one commit. What an earlier
        # version has left in its folders goes with that. A Space is small, and every commit would start it anew.
        message = f"Publish {folder.name}"
        if kind != "space":
            api.upload_folder(**upload, ignore_patterns=["README.md", *private], commit_message=f"{message}: data")
        commit = api.upload_folder(
            **upload, ignore_patterns=private, delete_patterns=STALE[kind], commit_message=message
        )
        return str(commit.repo_url)
    except (HTTPError, RuntimeError, OSError, ValueError) as error:  # a file that could not be sent: RuntimeError
        reason = " ".join(str(error.__cause__ or error).split())
        raise BadInput(
            f"--push {repo}: {reason} (the {kind} is whole in {folder}; the same command pushes what is missing)"
        ) from error


def check_repo_name(repo: str, option: str = "--push") -> None:
    """Refuse what is no ORG/NAME, before anything is made for it."""
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise BadInput(f"{option} {repo}: is no ORG/NAME ({error})") from error
