"""Where checkpoints lie: their names, for whoever looks at a run without loading what trains it."""

from pathlib import Path


def list_checkpoints(folder: Path, kept: bool = False) -> list[Path]:
    """The checkpoints in a folder, oldest first; with `kept`, those for runs that branch off."""
    return sorted(folder.glob(f"{'kept-' if kept else ''}checkpoint-*.pt"))


def step_of(checkpoint: Path) -> int:
    """The number of steps before a checkpoint."""
    return int(checkpoint.stem.rsplit("-", 1)[1])
