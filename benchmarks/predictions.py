"""How many galaxies are predicted in a second on one core: hf_galaxy beside Zoobot's predict_on_catalog, from JPEGs to tables on the disk.

    .venv/bench/bin/python benchmarks/predictions.py [--backbones convnext_atto] [--image-sizes 224] [--images DIR_OR_ZIP]

Zoobot and galaxy-datasets are under the GPL and needed for nothing else: benchmarks/README.md says how to install them beside the project's
packages, and what runs of either side. Without them the rest is measured.
"""

import gc
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from material import INSTALL_ZOOBOT, SIDE, cpu_seconds, encoded, machine, spread

import hf_galaxy
from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.command_line import Command
from hf_galaxy.data.galaxies import decode
from hf_galaxy.decision_tree import DecisionTree, load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.files import write_json
from hf_galaxy.models.start import load_model

PACKAGES = [
    "hf_galaxy",
    "zoobot",
    "galaxy-datasets",
    "lightning",
    "torch",
    "torchvision",
    "onnxruntime",
    "timm",
    "simplejpeg",
]
OURS, OURS_ONNX, LIMIT = "hf_galaxy", "hf_galaxy, --runtime onnx", "decoding and network in torch alone"
LITE0 = Path(__file__).parent.parent / "spaces_app/models/lite0"
PEER, PEER_VIEW = "Zoobot, resized", "Zoobot, its view for testing"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the CPU time of a galaxy, all ways in turn in one process with one thread."""

    backbones: tuple[str, ...] = ("test_resnet", "convnext_atto", "tf_efficientnet_lite0")
    """Timm architectures; their weights are random."""
    image_sizes: tuple[int, ...] = (64, 224)
    """Sides of what they see, in pixels."""
    tree: str = "gz_decals_dr5"
    """Campaign whose votes are predicted."""
    batch_size: int = 64
    """Galaxies at once."""
    workers: int = 0
    """Processes that decode pictures, of either side."""
    repeats: int = 3
    """Rounds, in each of which every way is taken in turn."""
    galaxies: int = 640
    """Pictures of the larger folder; the smaller one has --batch-size of them."""
    images: Path | None = None
    """Folder or zip file of real pictures, to be cut square and encoded anew; without it mock galaxies are drawn."""
    record: Path | None = None
    """A JSON file for what was measured, which costs.py reads."""

    def check(self) -> None:
        """Refuse what would measure nothing."""
        if self.batch_size < 1 or self.galaxies <= self.batch_size or self.repeats < 1:
            raise BadInput("--galaxies must be more than --batch-size; that and --repeats at least 1")


Way = Callable[[Path, Path], object]  # of a folder of pictures, writes predictions to a path


def ours(model: GalaxyForVotes, settings: Settings) -> dict[str, Way]:
    """hf_galaxy.predict, which does what hf-galaxy predict does, with either runtime."""

    def way(runtime) -> Way:
        def predict(pictures, out):
            hf_galaxy.predict(
                model, pictures, out=out, batch_size=settings.batch_size, workers=settings.workers, runtime=runtime
            )

        return predict

    return {OURS: way("torch"), OURS_ONNX: way("onnx")}


def limit(model: GalaxyForVotes, settings: Settings) -> dict[str, Way]:
    """What every way that runs the network in torch has to do at least; the pictures it sees are noise."""
    views = torch.rand(settings.batch_size, 3, model.config.image_size, model.config.image_size)

    @torch.inference_mode()
    def least(pictures, _):
        files = sorted(pictures.iterdir())
        for first in range(0, len(files), settings.batch_size):
            batch = [decode(file.read_bytes()) for file in files[first : first + settings.batch_size]]
            model(pixel_values=views[: len(batch)])

    return {LIMIT: least}


def peer(backbone: torch.nn.Module, tree: DecisionTree, size: int, settings: Settings) -> dict[str, Way]:
    """Zoobot's predict_on_catalog with a model that is finetuned to a tree: resizing as its documentation proposes it, and with its view for testing."""
    import pandas as pd
    from galaxy_datasets import transforms
    from torchvision.transforms import v2
    from zoobot.pytorch.predictions import predict_on_catalog
    from zoobot.pytorch.training.finetune import FinetuneableZoobotTree
    from zoobot.shared.schemas import Schema

    schema = Schema(
        {q.name: [f"_{answer}" for answer in q.answers] for q in tree.questions},
        {q.name: q.parents[0] if q.parents else None for q in tree.questions},
    )
    model = FinetuneableZoobotTree(encoder=backbone, schema=schema, prog_bar=False)
    loading = {"batch_size": settings.batch_size, "num_workers": settings.workers}
    if not settings.workers:
        loading["prefetch_factor"] = None  # which torch refuses without workers
    view = transforms.minimal_view_config()
    view.output_size = size
    trainer = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer |= {"enable_model_summary": False}

    def way(transform) -> Way:
        def predict(pictures, out):
            files = sorted(map(str, pictures.iterdir()))
            catalog = pd.DataFrame({"id_str": files, "file_loc": files})
            predict_on_catalog.predict(
                catalog, model, f"{out}.csv", schema.label_cols, transform, datamodule_kwargs=loading, trainer_kwargs=trainer
            )  # fmt: skip

        return predict

    return {
        PEER: way(v2.Compose([v2.Resize((size, size)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])),
        PEER_VIEW: way(transforms.get_galaxy_transform(view)),
    }


def has_peer() -> bool:
    """Whether Zoobot is installed; says so if it is not."""
    try:
        with redirect_stdout(sys.stderr):  # it remarks on internal datasets that are not there
            import zoobot.pytorch.predictions.predict_on_catalog  # noqa: F401
    except ImportError as error:
        print(f"Zoobot is missing ({error}); in an environment of its own: {INSTALL_ZOOBOT}", file=sys.stderr)
        return False
    return True


def measure(ways: dict[str, Way], folders: list[Path], out: Path, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of a further galaxy, in each round: those of the larger folder less those of the smaller one, which has the start of either."""
    counts = [len(list(folder.iterdir())) for folder in folders]
    times = {name: [] for name in ways}
    for round_ in range(repeats + 1):
        for name, predict in ways.items():
            taken = []
            for pictures in folders if round_ else folders[:1]:
                start = cpu_seconds()
                predict(pictures, out / f"{time.time_ns()}")
                gc.collect()  # ends workers that a loader has kept
                taken.append(cpu_seconds() - start)
            if round_:  # the first is for what is allocated or rearranged at first use
                times[name].append((taken[1] - taken[0]) / (counts[1] - counts[0]))
    return times


def sizes(folders: list[Path], out: Path) -> dict[str, float]:
    """Bytes of a further galaxy on the disk: of its picture, and of its row in tables of the run LITE0 with several columns."""
    counts = [len(list(folder.iterdir())) for folder in folders]

    def further(taken: list[int]) -> float:
        return (taken[1] - taken[0]) / (counts[1] - counts[0])

    def tables(name: str, **columns) -> float:
        taken = []
        for folder in folders:
            hf_galaxy.predict(LITE0, folder, out=(to := out / f"{name}-{folder.name}"), workers=0, ood=False, **columns)
            taken.append(sum(file.stat().st_size for file in to.glob("part-*.parquet")))
        return further(taken)

    run = load_model(LITE0)
    found: dict[str, float] = {"answers of the run": len(run.columns), "features of the run": run.head.in_features}
    found["picture"] = further([sum(file.stat().st_size for file in folder.iterdir()) for folder in folders])
    found["predictions"] = tables("predictions", runtime="onnx")
    wider = tables("intervals", runtime="onnx", credible=0.9, answers=True)
    found["intervals and answers"] = wider - found["predictions"]
    for kind in ("float32", "float16"):
        wider = tables(kind, runtime="onnx", embeddings=True, embeddings_dtype=kind)
        found[f"embedding, {kind}"] = wider - found["predictions"]
    return found


@contextmanager
def quiet():
    """Without remarks of either side, and without progress bars."""
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def main(settings: Settings) -> None:
    settings.check()
    torch.set_num_threads(1)
    tree, with_peer = load_tree(settings.tree), has_peer()
    source = f"pictures from {settings.images.name}" if settings.images else "mock galaxies"
    print(
        f"{settings.galaxies} {source}, JPEGs of {SIDE} px, {len(tree.columns)} answers, batches of {settings.batch_size}, {settings.workers} "
        f"workers, float32, one thread; CPU time of a further galaxy, median (least to most) of {settings.repeats} rounds.\n\n{machine(*PACKAGES)}\n"
    )
    print(
        "| backbone | px | way | ms per galaxy | galaxies/s | Zoobot, resized / this |\n|---|---:|---|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / name for name in ("smaller", "larger")]
        for i, jpeg in enumerate(encoded(settings.images, settings.galaxies)):
            for folder in folders if i < settings.batch_size else folders[1:]:
                folder.mkdir(exist_ok=True)
                (folder / f"galaxy-{i:06}.jpg").write_bytes(jpeg)
        measured: list[dict] = []
        for backbone, size in product(settings.backbones, settings.image_sizes):
            print(f"measuring {backbone}, {size} px ...", file=sys.stderr)
            torch.manual_seed(0)
            with quiet():
                model = GalaxyForVotes(GalaxyConfig(backbone=backbone, tree=settings.tree, image_size=size)).eval()
                ways = ours(model, settings) | limit(model, settings)
                if with_peer:
                    ways |= peer(model.backbone, tree, size, settings)
                times = measure(ways, folders, Path(place), settings.repeats)
            measured += [{"backbone": backbone, "px": size, "way": way, "seconds": each} for way, each in times.items()]
            for name, seconds in times.items():
                ratios = [slow / own for slow, own in zip(times.get(PEER, []), seconds, strict=False)]
                cells = [backbone, str(size), name, spread([1000 * each for each in seconds], 2)]
                cells += [
                    spread([1 / each for each in seconds], 0),
                    f"**{spread(ratios, 2)}**" if ratios else "not measured",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
        if settings.record:
            with quiet():
                on_disk = sizes(folders, Path(place))
            facts = {"machine": machine(*PACKAGES), "pictures": source, "side": SIDE, "answers": len(tree.columns)}
            write_json(settings.record, facts | {"seconds_of_a_galaxy": measured, "bytes_of_a_galaxy": on_disk})


if __name__ == "__main__":
    Command(Settings, main)()
