"""How long an epoch takes: hf_galaxy beside the Lightning recipe of Zoobot and GZ Evo, on the same galaxies.

    .venv/bench/bin/python benchmarks/against_zoobot.py [--backbone convnext_atto] [--image-size 128] [--images DIR_OR_ZIP]

Zoobot and galaxy-datasets are under the GPL and needed for nothing else: benchmarks/README.md says how to install them
beside the project's packages, and what runs of either side.
"""

import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

import datasets
import torch
from material import INSTALL_ZOOBOT, SIDE, encoded, machine, publish, spread

from hf_galaxy.command_line import Command
from hf_galaxy.cores import available_cores
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.training import run as experiment
from hf_galaxy.training.settings import Settings as RunSettings

CROP = 1 / 1.2  # what Zoobot's view for testing shows of a picture
SEEN = ("train", "validation", "test")
PACKAGES = ["hf_galaxy", "zoobot", "galaxy-datasets", "lightning", "torch", "timm", "datasets", "simplejpeg"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the wall time of epochs, both sides in turn, each in a process of its own."""

    backbone: str = "convnext_atto"
    """A timm architecture; its weights are random."""
    image_size: int = 96
    """Side of what it sees, in pixels."""
    tree: str = "gz_evo"
    """Campaigns whose votes are learnt."""
    batch_size: int = 64
    """Galaxies a step."""
    precision: Literal["no", "fp16"] = "no"
    """Mixed precision."""
    workers: int = min(8, max(1, len(available_cores()) // 2))
    """Processes that load pictures."""
    epochs: int = 3
    """Of each run; the first warms up and counts only where start-up is said to be included."""
    repeats: int = 2
    """Runs of each side."""
    galaxies: int = 512
    """Pictures to train on, a multiple of --batch-size, because the peer leaves out what is over; a quarter as many to validate."""
    images: Path | None = None
    """Folder or zip file of real pictures, to be cut square and encoded anew; without it mock galaxies are drawn."""

    def check(self) -> None:
        """Refuse what would not be the same work for both."""
        if self.galaxies <= 0 or self.galaxies % (4 * self.batch_size):
            raise BadInput(
                f"--galaxies {self.galaxies}: must be a multiple of {4 * self.batch_size} (4 x --batch-size)"
            )
        if self.epochs < 2 or self.repeats < 1:
            raise BadInput("--epochs must be at least 2, --repeats at least 1")


@dataclass(frozen=True)
class Times:
    """Wall seconds of a run.

    Attributes:
        training: an epoch's training steps, a mean over all epochs but the first.
        loop: from the first step to the last checkpoint, divided by the epochs: with validation, checkpoints and the
            start of the loader's workers.
    """

    training: float
    loop: float


def prepare() -> None:
    """Make a spawned process as one that was started from a shell, but for its remarks."""
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    sys.stdout = sys.stderr
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


def ours(settings: Settings, folder: Path) -> Times:
    """As scripts/pretrain.py trains."""
    record = experiment.run_training(
        RunSettings(
            dataset=(str(folder),),
            out=folder / f"ours-{time.time_ns()}",
            tree=(settings.tree,),
            backbone=settings.backbone,
            head_activation="sigmoid",  # as Zoobot's
            image_size=settings.image_size,
            crop=CROP,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            precision=settings.precision,
            workers=settings.workers,
        )
    )
    rates = [epoch["galaxies_per_second"] for epoch in record.training["history"][1:]]
    return Times(mean(settings.galaxies / rate for rate in rates), record.training["seconds"] / settings.epochs)


def peer(settings: Settings, folder: Path) -> Times:
    """Zoobot's model, loss and metrics, GZ Evo's loader and views, and the Lightning trainer that both set up alike."""
    import lightning
    from galaxy_datasets import transforms
    from galaxy_datasets.pytorch.galaxy_datamodule import HuggingFaceDataModule
    from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from zoobot.pytorch.estimators.define_model import ZoobotTree

    class Clock(Callback):
        """Wall clock at the ends of what `Times` tells apart."""

        def __init__(self):
            self.starts, self.ends = [], []

        def on_train_epoch_start(self, *_):
            self.starts.append(now())

        def on_validation_start(self, *_):
            self.ends.append(now())

        def on_fit_end(self, *_):
            self.finish = now()

    def now():
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    lightning.seed_everything(42)
    train_view, test_view = transforms.default_view_config(), transforms.minimal_view_config()
    train_view.random_affine["scale"] = (1.0, 1.4)  # these two as GZ Evo changes them
    train_view.erase_iterations = 0
    train_view.output_size = test_view.output_size = settings.image_size
    tree = load_tree(settings.tree)
    rows = datasets.load_dataset(str(folder)).select_columns(["image", *tree.columns])
    data = HuggingFaceDataModule(
        rows,
        transforms.get_galaxy_transform(train_view),
        transforms.get_galaxy_transform(test_view),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
    )
    model = ZoobotTree(
        output_dim=len(tree.columns),
        question_answer_pairs={q.name: [f"_{answer}" for answer in q.answers] for q in tree.questions},
        dependencies={q.name: q.parents[0] if q.parents else None for q in tree.questions},
        architecture_name=settings.backbone,
    )
    out, monitor, clock = folder / f"peer-{time.time_ns()}", "validation/supervised_loss", Clock()
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision={"no": "32-true", "fp16": "16-mixed"}[settings.precision],
        max_epochs=settings.epochs,
        gradient_clip_val=0.3,
        num_sanity_val_steps=0,
        log_every_n_steps=150,
        logger=CSVLogger(out),
        callbacks=[
            clock,
            ModelCheckpoint(out / "checkpoints", monitor=monitor, mode="min", save_weights_only=True, save_top_k=3),
            EarlyStopping(monitor=monitor, patience=8, check_finite=True),
        ],
        default_root_dir=out,
    )
    torch.set_float32_matmul_precision("medium" if settings.precision == "fp16" else "high")
    trainer.fit(model, data)
    training = [end - start for start, end in zip(clock.starts, clock.ends, strict=True)]
    return Times(mean(training[1:]), (clock.finish - clock.starts[0]) / settings.epochs)


def main(settings: Settings) -> None:
    settings.check()
    try:
        with redirect_stdout(sys.stderr):  # it remarks on internal datasets that are not there
            import zoobot.pytorch.estimators.define_model  # noqa: F401
    except ImportError as error:
        raise BadInput(f"Zoobot is missing ({error}); in an environment of its own: {INSTALL_ZOOBOT}") from error
    datasets.disable_progress_bars()
    tree, times = load_tree(settings.tree), {"hf_galaxy": [], "Zoobot, GZ Evo": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")  # of the processes to come
        jpegs = list(encoded(settings.images, settings.galaxies))
        for split in SEEN:
            publish(jpegs if split == "train" else jpegs[: settings.galaxies // 4], tree, folder, split)
        for number in range(settings.repeats):
            for name, side in zip(times, (ours, peer), strict=True):
                print(f"round {number + 1} of {settings.repeats}: {name} ...", file=sys.stderr)
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare) as fresh:
                    times[name].append(fresh.submit(side, settings, folder).result())
                print(f"{name}: {times[name][-1]}", file=sys.stderr)
    report(settings, times)


def report(settings: Settings, times: dict[str, list[Times]]) -> None:
    """Print the table."""
    source = f"pictures from {settings.images.name}" if settings.images else "mock galaxies"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{settings.backbone}, {settings.image_size} px, batches of {settings.batch_size}, precision {settings.precision}, "
        f"{len(load_tree(settings.tree).columns)} answers; {settings.galaxies} {source} to train on, "
        f"{settings.galaxies // 4} to validate, JPEGs of {SIDE} px; {settings.workers} workers; {device}; "
        f"{settings.epochs} epochs; median (least to most) of {settings.repeats} runs.\n\n{machine(*PACKAGES)}\n"
    )
    print("| seconds per epoch | training, after the first epoch | with validation and checkpoints, from the start |")
    print("|---|---:|---:|")
    for name, runs in times.items():
        print(f"| {name} | {spread([t.training for t in runs], 2)} | {spread([t.loop for t in runs], 2)} |")
    pairs = list(zip(*reversed(times.values()), strict=True))
    training, loop = [p.training / o.training for p, o in pairs], [p.loop / o.loop for p, o in pairs]
    print(f"| {' / '.join(reversed(times))} (target > 1) | {spread(training, 2)} | {spread(loop, 2)} |")


if __name__ == "__main__":
    Command(Settings, main)()
