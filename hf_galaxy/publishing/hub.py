"""Upload of a published folder to the Hub, byte for byte: a dataset, a run folder, or a Space."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects, validate_repo_id

from hf_galaxy.errors import BadInput

# Files of an earlier version of a repository that must not remain.
STALE = {
    "dataset": ["data/*", "tiny/*", "native/*"],
    "model": ["*.safetensors", "figures/*", ".eval_results/*"],
    "space": ["*"],
}
# Files of a run folder that only its writers need: locks, and what training resumes or branches from.
TRAINING_FILES = ("*.lock", ".saving*", "*.partial", "checkpoint-*.pt", "kept-checkpoint-*.pt")
# Suffixes of files that can run any code when loaded. NumPy refuses pickles in .npy and .npz by default.
PICKLES = {"bin", "pth", "pt", "pkl", "pickle", "dill", "ckpt", "joblib"}


def check_run_files(run: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a run folder whose weights are not safetensors, or that has pickles.

    Args:
        allowed: paths in the folder of pickles that may be uploaded.

    Raises:
        BadInput: names the files.
    """
    if not list(run.glob("model*.safetensors")):
        raise BadInput(f"--run {run}: has no weights in safetensors, the only format that is published")
    uploaded = _uploaded(run)
    if missing := sorted(set(allowed) - uploaded):
        raise BadInput(f"--allow-pickle {missing[0]}: there is no such file among those of {run} that are uploaded")
    if dangerous := pickles(uploaded - set(allowed)):
        raise BadInput(
            f"--run {run}: {', '.join(dangerous)} can run any code when loaded; remove it, or name it with --allow-pickle"
        )


def pickles(paths: Iterable[str]) -> list[str]:
    """Paths of files that can run any code when loaded. Each suffix counts, as in x.pkl.gz."""
    return sorted(path for path in paths if PICKLES & {*path.split("/")[-1].lower().split(".")[1:]})


def _uploaded(run: Path) -> set[str]:
    """Paths of the files of a run folder that `push` uploads."""
    paths = [file.relative_to(run).as_posix() for file in run.glob("**/*") if file.is_file()]
    return set(filter_repo_objects(paths, ignore_patterns=[*TRAINING_FILES, *DEFAULT_IGNORE_PATTERNS]))


def push(folder: Path, repo: str, kind: Literal["dataset", "model", "space"] = "dataset") -> str:
    """Upload a published folder to the Hub. After an interruption, files that are there already are not sent again.

    Args:
        kind: a model is a run folder, without TRAINING_FILES. A Space runs on Gradio and has the files of the folder only.

    Returns:
        The address of the repository.

    Raises:
        BadInput: the Hub refused, or cannot be reached.
    """
    api, upload = HfApi(), {"folder_path": folder, "repo_id": repo, "repo_type": kind}
    private = [*TRAINING_FILES] if kind == "model" else []
    try:
        api.create_repo(repo, repo_type=kind, exist_ok=True, space_sdk="gradio" if kind == "space" else None)
        # The card comes last: it makes the repository visible, and a large upload is more than one commit. The last commit
        # also deletes files of an earlier version. A Space is small, and restarts at each commit.
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
            f"--push {repo}: {reason} (the {kind} is complete in {folder}; the same command pushes what is missing)"
        ) from error


def check_repo_name(repo: str, option: str = "--push") -> None:
    """Refuse a name that is not ORG/NAME, before any work is done.

    Raises:
        BadInput: names the option.
    """
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise BadInput(f"{option} {repo}: is not ORG/NAME ({error})") from error
