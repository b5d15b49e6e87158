"""The same galaxies as 8-bit colour pictures (PNG, without loss) of g, r and i, in three ways.

    python results/bands/pictures.py --survey data/bands         # 3,000 galaxies; 30 s of one core

Writes folders beside data/bands/fits, each with a table such as data/bands/asinh.csv: `asinh` and `lupton`, as `hf-galaxy publish` makes pictures of FITS files of three bands by default and
with --stretch lupton, each between percentiles of the file's own fluxes; and `fixed`, with one stretch for all galaxies, as the
pictures of survey servers have, which the library does not make: that of the floats, between -3 sigma of the sky and white.
data/bands/galaxies.png shows some galaxies in each way.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from PIL import Image

from hf_galaxy.data.band_stretch import BandStretch
from hf_galaxy.data.pictures import Rendering

BANDS = ("g", "r", "i")
DARK = -3.0  # sigma of the sky that is black in `fixed`
MEASURED = 500  # galaxies that the fixed stretch is measured on
RENDERINGS = {"asinh": Rendering(), "lupton": Rendering(stretch="lupton")}
WAYS = (*RENDERINGS, "fixed")
SHOWN = 12  # galaxies on the sheet


def planes_of(file: Path) -> np.ndarray:
    """(3, 64, 64) fluxes in g, r and i."""
    with fits.open(file) as hdus:
        return np.stack([hdus[band].data for band in BANDS])


def fixed(planes: np.ndarray, stretch: BandStretch) -> Image.Image:
    """8-bit picture by one stretch for all galaxies."""
    shown = stretch.brightness(torch.from_numpy(planes.astype(np.float32))[None])[0].numpy()
    noise = np.arcsinh((np.array(stretch.saturation) - np.array(stretch.sky)) / np.array(stretch.noise))
    dark = (np.arcsinh(DARK) / noise)[:, None, None]
    levels = np.rint(255 * ((shown - dark) / (1 - dark)).clip(0, 1)).astype(np.uint8)
    return Image.fromarray(np.moveaxis(levels[::-1, ::-1], 0, -1).copy())  # red is i; the first row of FITS is below


def sheet(survey: Path, rows: list[dict[str, str]]) -> Image.Image:
    """Some galaxies beside each other, enlarged; a row of pictures for each way."""
    lines = [
        np.hstack([np.asarray(Image.open(survey / way / f"{row['id']}.png")) for row in rows]).repeat(2, 0).repeat(2, 1)
        for way in WAYS
    ]
    return Image.fromarray(np.vstack(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--survey", type=Path, required=True, help="folder of draw.py")
    survey = parser.parse_args().survey
    with (survey / "survey.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for way in WAYS:
        (survey / way).mkdir(exist_ok=True)
        with (survey / f"{way}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"file": f"{way}/{row['id']}.png"} for row in rows)
    measured = np.stack([planes_of(survey / row["file"]) for row in rows[:MEASURED]], axis=1)
    stretch = BandStretch.of(measured.reshape(len(BANDS), -1), BANDS)
    for row in rows:
        planes = planes_of(survey / row["file"])
        content = io.BytesIO()
        fits.PrimaryHDU(planes).writeto(content)
        for way, rendering in RENDERINGS.items():
            (survey / way / f"{row['id']}.png").write_bytes(rendering.render(content.getvalue(), row["file"])[0])
        fixed(planes, stretch).save(survey / "fixed" / f"{row['id']}.png")
    sheet(survey, rows[:SHOWN]).save(survey / "galaxies.png")


if __name__ == "__main__":
    main()
