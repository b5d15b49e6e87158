"""How fast training pictures come off the disk: bare JPEG decoding, hf_galaxy, and galaxy-datasets on the same rows.

    python benchmarks/data_loading.py [--galaxies 2000] [--repeats 3] [--images DIR_OR_ZIP]

One process, one thread, no loader workers, so that CPU time per picture is a clean figure; see benchmarks/README.md.
"""

import io
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import datasets
import numpy as np
import torch
from material import SIDE, cpu_seconds, encoded, machine, publish, spread
from PIL import Image

from hf_galaxy.command_line import Command
from hf_galaxy.data.copied import CopiedRows, open_copy
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import Framing
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.training.augmentation import train_view
from hf_galaxy.training.sequence import ProcessShard, TrainingSequence, training_batches
from hf_galaxy.training.targets.votes import Votes

VIEW, BATCH = 224, 64
FRAMING = Framing(size=VIEW, crop=VIEW / SIDE)
INSTALL_PEER = "pip install --no-deps galaxy-datasets==0.0.25 lightning lightning-utilities torchmetrics omegaconf"
PACKAGES = ["hf_galaxy", "galaxy-datasets", "lightning", "torch", "torchvision", "datasets", "pillow", "simplejpeg"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure CPU time per picture, every loader in turn, over and over."""

    galaxies: int = 2000
    """Pictures in the dataset."""
    repeats: int = 3
    """Rounds; in each, every loader goes through the dataset once."""
    tree: str = "gz_rings"
    """Campaigns of whose votes there are columns."""
    images: Path | None = None
    """Folder or zip file of real pictures, to be cut square and encoded anew; without it mock galaxies are drawn."""


def ours(rows: CopiedRows, tree: DecisionTree) -> Iterator[torch.Tensor]:
    """THE LOADING OF HF_GALAXY, to be kept in step with it: uint8 canvases, shuffled, beside votes and affine maps."""
    return (batch["pixels"] for batch in _our_batches(rows, tree))


def ours_with_views(rows: CopiedRows, tree: DecisionTree) -> Iterator[torch.Tensor]:
    """The same and the random views, which training takes on its own device, here on the CPU."""
    return (train_view(batch["pixels"], batch["affine"], FRAMING) for batch in _our_batches(rows, tree))


def _our_batches(rows, tree):
    sequence = TrainingSequence(Galaxies(rows, FRAMING, Votes(tree), fast=True), seed=0)
    return training_batches(sequence, BATCH, range(len(rows) // BATCH), ProcessShard(), workers=0)


def peer_loaders() -> dict[str, Callable]:
    """The loaders of galaxy-datasets: rows -> batches of float32 views; none where it is not installed."""
    try:
        with redirect_stdout(sys.stderr):  # it remarks on internal datasets that are not there
            from galaxy_datasets import transforms
            from galaxy_datasets.pytorch.galaxy_datamodule import HuggingFaceDataModule
    except ImportError as error:
        print(f"galaxy-datasets is left out ({error}); to include it: {INSTALL_PEER}\n")
        return {}

    def loader(config, iterable=False):
        config.output_size = VIEW  # is the default
        view = transforms.get_galaxy_transform(config)

        def batches(rows):
            splits = datasets.DatasetDict(train=rows, validation=rows)
            module = HuggingFaceDataModule(splits, view, view, batch_size=BATCH, num_workers=0, iterable=iterable)
            module.setup("fit")
            return (batch["image"] for batch in module.train_dataloader())

        return batches

    return {
        "galaxy-datasets, default view": loader(transforms.default_view_config()),
        "galaxy-datasets, default view, iterable": loader(transforms.default_view_config(), iterable=True),
        "galaxy-datasets, minimal view": loader(transforms.minimal_view_config()),
    }


def bare_decoders() -> dict[str, Callable]:
    """JPEG bytes -> (H, W, 3) uint8. The first is what loading is held against."""
    decoders = {"bare decode, PIL": lambda jpeg: np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))}
    try:
        import simplejpeg
    except ImportError:
        return decoders
    return {"bare decode, simplejpeg": simplejpeg.decode_jpeg} | decoders


def measure(see: Callable[[], int]) -> tuple[float, float]:
    """CPU ms and wall ms per picture; `see` returns how many it saw."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    seen = see()
    return 1000 * (cpu_seconds() - cpu) / seen, 1000 * (time.perf_counter() - wall) / seen


def main(settings: Settings) -> None:
    if settings.galaxies < BATCH or settings.repeats < 1:
        raise BadInput(f"--galaxies must be at least {BATCH}, --repeats at least 1")
    logging.disable(logging.WARNING)  # galaxy-datasets and Lightning remark on missing workers
    warnings.filterwarnings("ignore")
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoders, peers = bare_decoders(), peer_loaders()
    tree = load_tree(settings.tree)
    own = {"hf_galaxy": partial(ours, tree=tree), "hf_galaxy, views on the CPU": partial(ours_with_views, tree=tree)}
    see = {name: lambda jpegs, _, d=decode: sum(d(j) is not None for j in jpegs) for name, decode in decoders.items()}
    see |= {name: lambda _, rows, b=batches: sum(map(len, b(rows))) for name, batches in (own | peers).items()}
    jpegs = list(encoded(settings.images, settings.galaxies))
    times = {name: [] for name in see}
    with tempfile.TemporaryDirectory() as folder:
        publish(jpegs, tree, Path(folder))
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        copy = open_copy(folder)["train"]
        theirs = datasets.load_dataset(folder, split="train").select_columns(["image", *tree.columns])
        for name in see:  # what is imported or cached at first use
            see[name](jpegs[:BATCH], (copy if name in own else theirs).select(np.arange(BATCH)))
        for _ in range(settings.repeats):
            for name in see:
                print(f"measuring {name} ...", file=sys.stderr)
                rows = copy if name in own else theirs
                times[name].append(measure(lambda name=name, rows=rows: see[name](jpegs, rows)))
    report(settings, sum(map(len, jpegs)) / len(jpegs), times, next(iter(decoders)), next(iter(peers), None))


def report(settings: Settings, jpeg_bytes: float, times: dict, bare: str, peer: str | None) -> None:
    """Print the tables."""
    cpu = {name: [c for c, _ in rounds] for name, rounds in times.items()}
    source = f"pictures from {settings.images.name}" if settings.images else "mock galaxies"
    print(
        f"{settings.galaxies} {source}, JPEGs of {SIDE} pixels and {jpeg_bytes / 1000:.1f} kB, votes of {settings.tree}; "
        f"views of {VIEW} pixels; batches of {BATCH}; median (least to most) of {settings.repeats} rounds.\n\n{machine(*PACKAGES)}\n"
    )
    print("| | CPU ms per image | images/s |\n|---|---:|---:|")
    for name, rounds in times.items():
        print(f"| {name} | {spread(cpu[name], 3)} | {1000 / median(wall for _, wall in rounds):.0f} |")
    print("\n| ratio of CPU times | | target |\n|---|---:|---:|")
    ratios = [(peer, "hf_galaxy", ">= 3"), (peer, "hf_galaxy, views on the CPU", "")] if peer else []
    for slow, fast, target in [*ratios, (bare, "hf_galaxy", ">= 0.8")]:
        rounds = [s / f for s, f in zip(cpu[slow], cpu[fast], strict=True)]
        print(f"| {slow} / {fast} | {spread(rounds, 2)} | {target} |")


if __name__ == "__main__":
    Command(Settings, main)()
