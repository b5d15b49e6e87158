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
    """Of a run: `converged`; of the lengths that it was trained for, `length_epochs` and `length_losses`, the lowest validation losses above
    `length_least`, the loss of an oracle, 0 where nobody knows it."""
    found = record.training.get("convergence", {"converged": False, "least": 0.0, "lengths": []})
    return {
        "converged": found["converged"],
        "length_epochs": [each["epochs"] for each in found["lengths"]],
        "length_losses": [each["validation_loss"] - found["least"] for each in found["lengths"]],
        "length_least": found["least"],
    }


def is_converged(study: Mapping[str, Any]) -> bool:
    """Whether all runs of a study have converged; only then do its laws say something on galaxies."""
    return study["data"]["converged"] == study["data"]["runs"]


def in_words(study: Mapping[str, Any]) -> str:
    """What a reader must know of the lengths before anything else."""
    runs, converged = study["data"]["runs"], study["data"]["converged"]
    if is_converged(study):
        above = " above that of an oracle" if any(each["least"] for each in study["lengths"]) else ""
        return f"All {runs} runs were trained until twice the length brought less than 0.5 % of the validation loss{above}."
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
    nothing = [[]] * len(points)
    return points.assign(converged=False, length_epochs=nothing, length_losses=nothing, length_least=0.0)


def lengths_of(points: pd.DataFrame) -> list[dict[str, Any]]:
    """For each run that was trained for several lengths: its backbone, start, galaxies and seed, `converged`, the oracle's loss
    `least`, and `epochs`, `pictures` and the loss `above` the oracle's of each length."""
    runs = with_convergence(points).drop_duplicates("run")
    return [
        {
            "backbone": run.backbone, "start": run.start, "galaxies": int(run.galaxies), "seed": int(run.seed), "converged": bool(run.converged),
            "least": float(run.length_least),
            "epochs": list(map(float, run.length_epochs)),
            "pictures": [round(epochs * run.galaxies) for epochs in run.length_epochs],
            "above": list(map(float, run.length_losses)),
        }
        for run in runs.sort_values(["backbone", "start", "galaxies", "seed"]).itertuples()
        if len(run.length_epochs)
    ]  # fmt: skip
