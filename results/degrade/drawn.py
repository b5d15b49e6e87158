"""How well degraded JPEGs agree with pictures of the same galaxies that are drawn farther away, for several assumptions on their stretch.

    python results/degrade/drawn.py FOLDER

Galaxies of the drawn survey: the truth is known, as GalSim draws the same galaxy at any distance, with the same arms, bars and knots. Writes drawn.json.
"""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import hf_galaxy
from hf_galaxy.commands.degrade import Degrade, answers_of, degrade
from hf_galaxy.evaluation.drift import DriftSums
from hf_galaxy.evaluation.drift_measurement import pairs_of
from hf_galaxy.models.start import load_model
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import MockSurvey

GALAXIES, SEED, SIZE, DISTANCES = 250, 11, 96, (1, 1.5, 2, 3)
RUN = "spaces_app/models/lite0"
# How the brightness of pictures is taken to follow from light. The survey's own stretch has a softening of 0.9 / 40, more saturated colours, and grey sky.
ASSUMED = {
    "lupton, softening 0.1 (default)": {}, "lupton, softening 0.0225 (nearly true)": {"picture_softening": 0.0225},
    "linear": {"picture_stretch": "linear"},
}  # fmt: skip


def draw_folders(folder: Path) -> None:
    """A folder of pictures for each distance."""
    survey = MockSurvey(3 * GALAXIES, SEED, SIZE)
    for distance in DISTANCES:
        own = folder / f"x{distance:g}"
        own.mkdir(parents=True)
        rows = []
        for i, campaign in enumerate(survey.campaigns):
            if campaign != "gz2" or len(rows) == GALAXIES:
                continue
            galaxy, of, rng = survey._begin(i)
            far = replace(
                galaxy, half_light_radius_arcsec=galaxy.half_light_radius_arcsec / distance,
                magnitude=galaxy.magnitude + 5 * math.log10(distance),
            )  # fmt: skip
            (own / f"{survey.ids[i]}.jpg").write_bytes(draw(far, of.imaging, SIZE, rng))
            scale = of.imaging.pixel_scale(far.half_light_radius_arcsec, SIZE)
            rows.append((f"{survey.ids[i]}.jpg", of.imaging.psf_fwhm_arcsec, scale))
        with open(own / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file_name", "psf_fwhm", "scale"), *rows])


def main(folder: Path) -> None:
    if not (folder / "x1").exists():
        draw_folders(folder)
    answers = answers_of(load_model(RUN), ("gz2",))
    predicted = folder / "predicted"
    for distance in DISTANCES:
        if not (predicted / f"x{distance:g}").exists():
            hf_galaxy.predict(RUN, folder / f"x{distance:g}", out=predicted / f"x{distance:g}", cpu=True, workers=0)
    drifts = {}
    for name, options in ASSUMED.items():
        out = folder / f"degraded {name}"
        if not out.exists():
            settings = Degrade(
                run=(RUN,), dataset=(str(folder / "x1"),), out=out, distance=DISTANCES[1:], psf_fwhm="psf_fwhm", arcsec_per_pixel="scale", survey_pixel="0.396", galaxies=0, campaign=("gz2",),
                cpu=True, workers=0, **options,
            )  # fmt: skip
            degrade(settings, "")
        drifts[name] = [(predicted / "x1", out / f"predictions/step-{step}") for step in range(1, len(DISTANCES))]
    drifts["drawn farther away"] = [(predicted / "x1", predicted / f"x{distance:g}") for distance in DISTANCES[1:]]
    results = {}
    changes = {}
    for name, pairs in drifts.items():
        for distance, (original, far) in zip(DISTANCES[1:], pairs, strict=True):
            sums = DriftSums(answers)
            (both,) = pairs_of(original, far, answers)
            sums.add(*both)
            changes[name, distance] = both.after - both.before
            results[f"{name} x{distance:g}"] = {
                row["answer"]: [round(row[key], 5) for key in ("drift", "drift_low", "drift_high")]
                for row in sums.of_answers()
            }
    scatter = {
        f"{name} x{distance:g}": round(
            float(np.corrcoef(change[:, 1], changes["drawn farther away", distance][:, 1])[0, 1]), 4
        )
        for (name, distance), change in changes.items()
    }
    record = {
        "galaxies": GALAXIES, "distances": list(DISTANCES[1:]), "assumed": list(ASSUMED), "drifts": results, "correlation_of_featured": scatter,
        "asked": {row["question"]: row["asked_original"] for row in sums.of_questions()},
    }  # fmt: skip
    (folder / "drawn.json").write_text(json.dumps(record))
    true = np.array([[v[0] for v in results[f"drawn farther away x{d:g}"].values()] for d in DISTANCES[1:]])
    for name in ASSUMED:
        ours = np.array([[v[0] for v in results[f"{name} x{d:g}"].values()] for d in DISTANCES[1:]])
        print(
            name,
            np.sqrt(((ours - true) ** 2).mean(1)).round(4),
            np.sqrt((true**2).mean(1)).round(4),
            [np.corrcoef(a, b)[0, 1].round(3) for a, b in zip(ours, true, strict=True)],
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
