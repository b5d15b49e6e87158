"""Calls with fluxes in memory: the model that is trained sees the fluxes, not the previews of them."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

import hf_galaxy
from hf_galaxy.errors import BadInput
from tests.calls.conftest import OPTIONS
from tests.fluxes import BANDS, KINDS, galaxy

pytestmark = pytest.mark.usefixtures("no_figures")
GALAXIES = 40


def frame():
    cubes = [np.stack([galaxy(i)[band] for band in BANDS]) for i in range(GALAXIES)]
    kinds = [KINDS[i % 2] for i in range(GALAXIES)]
    return pd.DataFrame({"id_str": [f"galaxy {i}" for i in range(GALAXIES)], "cutout": cubes, "kind": kinds})


def dataset():
    """The same, with a column of a fixed shape."""
    columns = frame().to_dict("list")
    strings = {name: datasets.Value("string") for name in ("id_str", "kind")}
    features = datasets.Features({"cutout": datasets.Array3D((4, 40, 40), "float32"), **strings})
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_table_of_arrays_of_planes_is_told_of_the_bands(start, tmp_path):
    with pytest.raises(BadInput, match=r"shape \(4, 40, 40\) is not a picture;.*; bands with the names of its planes"):
        hf_galaxy.finetune(frame(), target="kind", start=start, out=tmp_path / "run", **OPTIONS)


@pytest.mark.parametrize("made", [frame, dataset])
def test_a_model_trained_on_fluxes_in_memory_sees_them(made, start, tmp_path):
    run = hf_galaxy.finetune(made(), target="kind", start=start, out=tmp_path / "run", bands=BANDS, **OPTIONS)
    assert run.model.config.bands == list(BANDS)
    assert "--bands g r i z" in run.record.command
    ours = run.predict(made(), cpu=True).set_index("id_str")
    cube = frame().cutout[0]
    first = run.predict([cube], cpu=True)  # a picture in memory, with the bands of the model
    planes = dict(zip(BANDS, cube, strict=True))
    reordered = {band: torch.from_numpy(planes[band]) for band in reversed(BANDS)}
    others = [planes, reordered, torch.from_numpy(cube)]
    for data in (others, *others):
        same = run.predict(data, cpu=True)
        for name in ("flat_probability", "round_probability"):
            np.testing.assert_allclose(same[name], first[name][0], atol=1e-6)
    np.testing.assert_allclose(
        ours.loc["galaxy 0", ["flat_probability", "round_probability"]].to_numpy(float),
        first[["flat_probability", "round_probability"]].to_numpy(float)[0],
        atol=1e-5,
    )
