"""Whether the runs of a study were trained until more training brought little, and what each length of training brought.

Runs of one length measure training as much as galaxies: more galaxies are then trained on for more, or fewer, passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_galaxy.reports.run_record import RunRecord

if TYPE_CHECKING:
    import pandas as pd


def convergence_of(record: RunRecord) -> dict[str, Any]:
    """Of a run: `converged`; and of the lengths that it was trained for, `length_epochs` and `length_losses`, the lowest validation loss above
    the least possible one."""
    found = record.training.get("convergence", {"converged": False, "lengths": []})
    return {
        "converged": found["converged"],
        "length_epochs": [each["epochs"] for each in found["lengths"]],
        "length_losses": [each["validation_loss"] - found["least"] for each in found["lengths"]],
    }


def is_converged(study: Mapping[str, Any]) -> bool:
    """Whether all runs of a study have converged; only then do its laws say something on galaxies."""
    return study["data"]["converged"] == study["data"]["runs"]


def in_words(study: Mapping[str, Any]) -> str:
    """What a reader must know of the lengths before anything else."""
    runs, converged = study["data"]["runs"], study["data"]["converged"]
    if is_converged(study):
        return f"All {runs} runs were trained until twice the length brought less than 0.5 % of the validation loss above the least possible one."
    reached = f"only {converged} of the {runs} runs were" if converged else f"none of the {runs} runs was"
    return (
        f"**Not converged: {reached} trained until more training brought little.** More would lower the losses, of some numbers of galaxies more than "
        "of others, so that what looks like an effect of galaxies is one of training, too. This page claims no exponent, and nothing on what is left with "
        "any number of galaxies."
    )


def with_convergence(points: pd.DataFrame) -> pd.DataFrame:
    """The table of points, also if it was written before runs were trained until they converged."""
    if "converged" in points:
        return points
    return points.assign(converged=False, length_epochs=[[]] * len(points), length_losses=[[]] * len(points))


def lengths_of(points: pd.DataFrame) -> list[dict[str, Any]]:
    """For each run that was trained for several lengths: its backbone, start, galaxies and seed, `converged`, and `epochs`, `pictures` and
    `above` (the least loss) of each length."""
    runs = with_convergence(points).drop_duplicates("run")
    return [
        {
            "backbone": run.backbone, "start": run.start, "galaxies": int(run.galaxies), "seed": int(run.seed), "converged": bool(run.converged),
            "epochs": list(map(float, run.length_epochs)),
            "pictures": [round(epochs * run.galaxies) for epochs in run.length_epochs],
            "above": list(map(float, run.length_losses)),
        }
        for run in runs.sort_values(["backbone", "start", "galaxies", "seed"]).itertuples()
        if len(run.length_epochs)
    ]  # fmt: skip
