"""The FWHM of the PSF in the pictures of CEERS and of Galaxy Zoo 2, in their pixels, for metadata.csv of a folder of pictures.

    python results/degrade/psf.py ceers|gz2 SET FOLDER --galaxies 600

The pictures scale with the galaxy, and their sources do not say by how much. But noise that was white in the pixels of the survey is correlated over the
pixels that these were enlarged to; so the lag at which its correlation falls to one half tells the factor, and the PSF of the survey in its own pixels does the rest.
"""

import argparse
import csv
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hf_galaxy.data.degrading import Background
from hf_galaxy.data.schema import split_of

# FWHM in pixels of the survey: SDSS 1.32 arcsec (median in r) of 0.396; NIRCam F200W 0.066 arcsec, of the 0.03 arcsec of the mosaics.
FWHM = {"gz2": 1.32 / 0.396, "ceers": 0.066 / 0.03}
FACTORS = np.arange(1, 10.1, 0.5)


def half_lag(correlation):
    """Pixels at which the correlation of noise falls to one half."""
    below = np.flatnonzero(correlation < 0.5)
    if not len(below):
        return float(len(correlation))
    k = below[0]
    return k - 1 + (correlation[k - 1] - 0.5) / (correlation[k - 1] - correlation[k])


def half_lags(side):
    """Of white noise that is enlarged by each of FACTORS."""
    lags = []
    for factor in FACTORS:
        few = round(side / factor)
        white = np.random.default_rng(1).normal(size=(4, few, few)).astype("f4")
        shown = [np.asarray(Image.fromarray(w).resize((side, side), Image.Resampling.BICUBIC)) for w in white]
        lags.append(half_lag(np.mean([Background.of(plane).correlation for plane in shown], axis=0)))
    return np.maximum.accumulate(lags)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*FWHM])
    parser.add_argument("set", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=600)
    given = parser.parse_args()
    if given.kind == "ceers":
        files = {file.name: file.read_bytes for file in (given.set / "images").iterdir()}
    else:
        archive = zipfile.ZipFile(given.set / "images.zip")
        files = {Path(n).name: (lambda n=n: archive.read(n)) for n in archive.namelist() if n.endswith(".jpg")}
    ids = {Path(name).stem: name for name in files}
    if given.kind == "ceers":
        with open(given.set / "votes.csv", newline="") as table:
            ids = {row["id_str"]: Path(row["file"]).name for row in csv.DictReader(table)}
    files = {
        name: files[name] for galaxy, name in ids.items() if split_of(galaxy) == "test"
    }  # none that lite0 has learnt from
    names = sorted(files, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[: given.galaxies]
    given.folder.mkdir(parents=True)
    known = None
    rows = []
    for name in names:
        content = files[name]()
        grey = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(float)
        known = half_lags(len(grey)) if known is None else known
        factor = np.interp(half_lag(Background.of(grey).correlation), known, FACTORS)
        rows.append((name, round(float(factor), 2), round(float(factor * FWHM[given.kind]), 2)))
        (given.folder / name).write_bytes(content)
    with open(given.folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "enlarged", "psf_fwhm"), *rows])
    print(np.percentile([row[1] for row in rows], [5, 25, 50, 75, 95]))


main()
