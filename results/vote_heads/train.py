"""Train every head of the study on every survey, as linear probes and by finetuning; what is finished is skipped.

    python results/vote_heads/train.py --kind probe
    python results/vote_heads/train.py --kind finetune

in a folder with `data/`, the published surveys, and for the starts `weights/` and `runs/`.
"""

import argparse
import itertools
from pathlib import Path

import heads
import torch
from accelerate import Accelerator

from hf_galaxy.data.targets import Rows
from hf_galaxy.downstream.benchmark import PENALTIES
from hf_galaxy.downstream.probe import probe
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.losses import dirichlet_multinomial_nll
from hf_galaxy.models.ensemble import matched_dirichlets
from hf_galaxy.models.model import GalaxyForVotes
from hf_galaxy.models.start import load_run, resolve_start
from hf_galaxy.reports.run_record import FILE, RunRecord
from hf_galaxy.training.calibrating import calibrate
from hf_galaxy.training.context import RunContext
from hf_galaxy.training.features import BATCH, FeatureStore, GalaxyFeatures, without_backbone
from hf_galaxy.training.run import new_record, run_training
from hf_galaxy.training.settings import Settings
from hf_galaxy.training.targets.target import TrainingTarget
from hf_galaxy.training.task import measure, model_and_baseline

RUNS = Path("results/vote_heads/runs")
SURVEYS = {"ceers": 8, "gz2_votes": 7, "gz2_hart": 24, "mock": 8}  # epochs of finetuning
STARTS = {
    "probe": dict(start="weights/efficientnet_lite0_imagenet.pth", backbone="tf_efficientnet_lite0"),
    "finetune": dict(start="runs/start"),
}


def settings_of(kind: str, survey: str, head: str, seed: int) -> Settings:
    return Settings(
        dataset=(f"data/{survey}",), out=RUNS / kind / survey / f"head={head},seed={seed}", head_activation=head, seed=seed, fold=seed,
        image_size=64, crop=1, min_votes=5, workers=0, epochs=SURVEYS[survey], batch_size=64, learning_rate=1e-3, patience=4,
        cpu=True, calibrate=False, **STARTS[kind],  # the heads are compared
    )  # fmt: skip


def measured(settings: Settings) -> bool:
    return (settings.out / FILE).exists() and "calibrated" in RunRecord.load(settings.out).results


def train_probe(settings: Settings, store: FeatureStore, command: str) -> None:
    """The head that the best of several penalties gives on frozen features, as in the downstream benchmark."""
    context = RunContext.open(settings)
    sources, accelerator = context.sources, context.accelerator
    fields, weights = resolve_start(settings.backbone, settings.start, settings.image_size)
    model, baseline = model_and_baseline(settings, sources, fields)
    model.backbone.load_state_dict(weights)
    features = store.lookup(
        model,
        settings.dataset[0],
        list(open_dataset(settings.dataset[0], settings).values()),
        sources.target,
        accelerator,
    )
    splits = {split: features(parts) for split, parts in sources.splits.items()}
    record = new_record(context, command)
    record.baseline = baseline
    record.model = {"backbone": model.config.backbone, "start": settings.start, "parameters": model.parameter_counts()}
    record.training = {
        "penalties": probe(model, splits["train"], splits["validation"], splits["train"].columns["features"], PENALTIES)
    }
    with without_backbone(model):
        record.results["test"] = measure(
            model, record, [splits["test"]], BATCH, 0, accelerator, bootstrap=True
        ).compute()
        record.results["test"]["loss"]["single"] = single_loss(model, splits["test"])
        parts = {split: [each] for split, each in splits.items()}
        measure_calibrated(model, record, sources.target, parts, accelerator)
    record.finished = True
    settings.out.mkdir(parents=True, exist_ok=True)
    record.save(settings.out)


def train_whole(settings: Settings, command: str) -> None:
    """The model that finetuning gives; a call that was interrupted after it goes on."""
    if not ((settings.out / FILE).exists() and RunRecord.load(settings.out).finished):
        run_training(settings, command)
    context = RunContext.open(settings)
    model, record = load_run(settings.out)
    measure_calibrated(model, record, context.sources.target, context.sources.splits, context.accelerator)
    record.save(settings.out)


def measure_calibrated(
    model: GalaxyForVotes, record: RunRecord, target: TrainingTarget, splits: dict[str, list[Rows]], accelerator: Accelerator
) -> None:  # fmt: skip
    """Add to a record what its model is like on test galaxies when it is calibrated on validation galaxies, if that helps."""
    calibrate(model, target, splits["validation"], BATCH, 0, accelerator)
    metrics = measure(model, record, splits["test"], BATCH, 0, accelerator, bootstrap=True)
    record.results["calibrated"] = metrics.compute()


@torch.no_grad()
def single_loss(model: GalaxyForVotes, galaxies: GalaxyFeatures) -> float:
    """The loss with one Dirichlet distribution for each question: of a mixture, one with its means and variances."""
    votes = galaxies.columns["votes"]
    answers = model(pixel_values=galaxies.columns["features"])
    concentrations = answers.concentrations
    if answers.weights is not None:
        of_both, weights = (each.double().movedim(1, 0).numpy() for each in (concentrations, answers.weights))
        concentrations = torch.from_numpy(matched_dirichlets(of_both, model.tree, weights))
    return dirichlet_multinomial_nll(votes, concentrations, model.tree).sum(1).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=STARTS, required=True)
    parser.add_argument("--heads", nargs="+", choices=heads.HEADS, default=heads.HEADS)
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=list(SURVEYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    given = parser.parse_args()
    command = f"python results/vote_heads/train.py --kind {given.kind}"
    for seed, survey, head in itertools.product(given.seeds, given.surveys, given.heads):
        settings = settings_of(given.kind, survey, head, seed)
        if measured(settings):
            continue
        if given.kind == "finetune":
            train_whole(settings, command)
        else:
            train_probe(settings, FeatureStore(RUNS / "features"), command)
        results = RunRecord.load(settings.out).results
        losses = (results[name]["loss"] for name in ("test", "calibrated"))
        print(given.kind, survey, head, seed, *losses, flush=True)


if __name__ == "__main__":
    main()
