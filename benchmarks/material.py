"""What the benchmarks are taken on, JPEGs in a dataset laid out as a published one, and how they word what they found."""

import io
import os
import platform
import resource
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from statistics import median

import datasets
import numpy as np
from PIL import Image, ImageOps

from hf_galaxy.data.schema import row_features
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.errors import BadInput
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology

SIDE = 256
INSTALL_ZOOBOT = "pip install --no-deps zoobot==2.9.0 galaxy-datasets==0.0.25 lightning lightning-utilities pytorch-lightning torchmetrics omegaconf"
DRAWN = 200  # mock pictures are slow to draw: any more are these, turned and mirrored


def encoded(images: Path | None, galaxies: int) -> Iterator[bytes]:
    """JPEGs of SIDE pixels: of the source's own pictures, then of the same turned or mirrored, to make up the number.

    Args:
        images: folder or zip file of pictures, to be cut square and encoded anew; None: mock galaxies are drawn.
    """
    sources = islice(_pictures_in(images) if images else _mock_pictures(), galaxies)
    square = [ImageOps.fit(Image.open(io.BytesIO(s)).convert("RGB"), (SIDE, SIDE), Image.BICUBIC) for s in sources]
    if not square:
        raise BadInput(f"--images {images}: holds no .jpg, .jpeg or .png files")
    turns = [None, *Image.Transpose]
    for i in range(galaxies):
        picture, turn = square[i % len(square)], turns[i // len(square) % len(turns)]
        file = io.BytesIO()
        (picture if turn is None else picture.transpose(turn)).save(file, "JPEG", quality=90)
        yield file.getvalue()


def _mock_pictures():
    for i in range(DRAWN):
        rng = np.random.default_rng([0, i])
        yield draw(draw_morphology(rng), CAMPAIGNS[i % len(CAMPAIGNS)].imaging, SIDE, rng)


def _pictures_in(source):
    endings = (".jpg", ".jpeg", ".png")
    if source.is_dir():
        yield from (file.read_bytes() for file in sorted(source.rglob("*")) if file.suffix.lower() in endings)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as packed:
            yield from (packed.read(name) for name in sorted(packed.namelist()) if name.lower().endswith(endings))
    else:
        raise BadInput(f"--images {source}: no such folder or zip file")


def publish(jpegs: list[bytes], tree: DecisionTree, folder: Path, split: str = "train") -> None:
    """Write a split, laid out as a published one; the votes are made up."""
    votes = np.random.default_rng(0).integers(0, 20, (len(tree.columns), len(jpegs)), dtype=np.int32)
    names = [f"galaxy-{i}" for i in range(len(jpegs))]
    pictures = [{"bytes": jpeg, "path": f"{name}.jpg"} for name, jpeg in zip(names, jpegs, strict=True)]
    columns = {"id_str": names, "image": pictures} | dict(zip(tree.columns, votes, strict=True))
    (folder / "data").mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, row_features(tree)).to_parquet(folder / "data" / f"{split}-00000.parquet")


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def spread(values: list[float], digits: int) -> str:
    """Median (least to most)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def machine(*packages: str) -> str:
    """What the numbers were taken with, in one line."""
    installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    versions = [f"{p} {installed.get(p.lower().replace('_', '-'), 'missing')}" for p in packages]
    return f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {', '.join(versions)}"
