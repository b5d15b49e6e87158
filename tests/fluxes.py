"""A dataset of drawn galaxies with fluxes in four bands, for tests."""

import io

import datasets
import numpy as np
from PIL import Image

from hf_galaxy.data.fluxes import encode_fluxes
from hf_galaxy.data.schema import split_of

BANDS = ("g", "r", "i", "z")
SKY, NOISE = 5.0, 1.0  # of the band g; the others have twice, three times and four times as much
KINDS = ["round", "flat"]


def galaxy(i, size=40):
    """Band -> (size, size): a round or a flat galaxy, always the same."""
    rng = np.random.default_rng(i)
    down, across = np.mgrid[:size, :size] - size / 2 + 0.5
    light = rng.uniform(50, 200) * np.exp(-np.hypot(across, down * (1 + 2 * (i % 2))) / 3)
    return {
        band: ((c + 1) * (rng.normal(SKY, NOISE, (size, size)) + light)).astype(np.float32)
        for c, band in enumerate(BANDS)
    }


def picture(planes):
    """An 8-bit picture of three bands, encoded."""
    rgb = np.stack([planes[band] / (4 * 60) for band in "irg"], -1).clip(0, 1)
    file = io.BytesIO()
    Image.fromarray((rgb * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def publish_fluxes(folder, galaxies=120):
    """A dataset with `image`, `flux`, a class `kind` and a value `noise`; every tenth galaxy lacks band z, every seventh some pixels."""
    features = datasets.Features(
        {
            "id_str": datasets.Value("string"),
            "image": datasets.Image(),
            "flux": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "kind": datasets.ClassLabel(names=KINDS),
            "size": datasets.Value("float32"),
        }
    )
    rows = []
    for i in range(galaxies):
        planes = galaxy(i)
        content = picture(planes)
        if i % 10 == 0:
            planes["z"][:] = np.nan
        if i % 7 == 0:
            planes["g"][3:6, 2:9] = np.nan
        name = f"galaxy {i}"
        files = {"image": {"bytes": content, "path": f"{name}.png"}}
        files["flux"] = {"bytes": encode_fluxes(planes, 0.26), "path": f"{name}.safetensors"}
        rows.append({"id_str": name, **files, "kind": i % 2, "size": float(i % 5)})
    (folder / "data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        of_split = [row for row in rows if split_of(row["id_str"]) == split]
        datasets.Dataset.from_list(of_split, features=features).to_parquet(folder / f"data/{split}-00000.parquet")
    return folder
