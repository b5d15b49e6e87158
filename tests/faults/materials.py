"""What jobs work with: a catalogue with pictures, tiles of the sky, and records of runs."""

import json
from pathlib import Path

import numpy as np

from tests.galaxies import jpeg_bytes
from tests.scaling.records import voted_records


def make_catalogue(folder: Path) -> None:
    """A catalogue of 12 galaxies with its pictures and its column map."""
    (folder / "pictures").mkdir(parents=True)
    for i in range(12):
        (folder / f"pictures/{i}.jpg").write_bytes(jpeg_bytes(i))
    rows = "".join(f"g{i},{i}.jpg,{i},{12 - i},k{i % 2},0.{i}\n" for i in range(12))
    (folder / "votes.csv").write_text(f"name,file,n_ring,n_none,kind,redshift\n{rows}")
    columns = {
        "id_str": "name", "image": "file", "votes": {"ring_yes": "n_ring", "ring_no": "n_none"},
        "classes": {"type": {"column": "kind", "names": {"k1": "odd", "k0": "even"}}},
    }  # fmt: skip
    (folder / "map.json").write_text(json.dumps(columns))


def make_tiles(folder: Path) -> None:
    """Two tiles of the sky in three bands, and six positions on them."""
    from tests.cutouts.test_tiles import DEC, RA, SCALE, SKY, wcs_of, write_tile

    for x in (0, 70):
        for band, values in zip("grz", SKY, strict=True):
            write_tile(folder / f"tiles/sky-{x}-{band}.fits", values[0:80, x : x + 80], wcs_of(x, 0))
    degrees = SCALE / 3600
    rows = [f"g{i},{(RA - (x - 75) * degrees / np.cos(np.radians(DEC))) % 360},{DEC - 40 * degrees}" for i, x in enumerate((20, 30, 45, 95, 110, 125))]  # fmt: skip
    (folder / "positions.csv").write_text("\n".join(["id,ra,dec", *rows]) + "\n")


def make_records(folder: Path) -> None:
    """A study of a few runs."""
    for name, record in voted_records(questions=("bar",), sizes=(300, 1_000, 3_000)).items():
        (folder / name).mkdir(parents=True)
        record.save(folder / name)


def make_tasks(file: Path, dataset: Path) -> None:
    """A task of a benchmark."""
    task = {"title": "Kinds", "dataset": str(dataset), "measure": "error", "task": "classes", "label": "mock_class"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in task.items()]
    file.write_text("\n".join(["[kinds]", *lines]) + "\n")
