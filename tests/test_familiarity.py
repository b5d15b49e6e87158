"""What is called unfamiliar is what a brute-force neighbour search finds far off, as often as the level says; and of its own weights only."""

import runpy
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors

from hf_galaxy.errors import BadInput
from hf_galaxy.experiment import load_run
from hf_galaxy.familiarity import COMPONENTS, FILE, KEPT, NEIGHBOUR, Familiarity
from tests.conftest import ROOT
from tests.runs import run as train

D = 200


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def galaxies(rng, number, basis):
    """Features of as many directions as there are components, some far wider than others."""
    return (rng.gamma(2, size=(number, len(basis))) * np.linspace(0.2, 3, len(basis))) @ basis


def test_it_is_the_distance_from_the_kth_nearest_neighbour():
    """All directions are kept, and all galaxies: then it is that of scikit-learn."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, COMPONENTS + 1)))[0].T
    basis, other = axes[:COMPONENTS], axes[COMPONENTS:]
    learnt, held_out = galaxies(rng, KEPT - 100, basis), galaxies(rng, 300, basis)
    fitted = Familiarity.fit(learnt, held_out)
    stranger = galaxies(rng, 20, basis) + 100 * rng.uniform(0, 1, (20, 1)) @ other  # something that no galaxy has
    for asked in (galaxies(rng, 50, basis), stranger, 100 * held_out[:5]):
        neighbours = NearestNeighbors(n_neighbors=NEIGHBOUR, algorithm="brute").fit(unit(learnt))
        distances = neighbours.kneighbors(unit(asked))[0][:, -1]
        np.testing.assert_allclose(fitted.unlikeness(asked) * fitted.threshold, distances, rtol=1e-4)
    assert fitted.unlikeness(stranger).max() > 1.5
    ranked = np.sort(fitted.unlikeness(held_out))
    assert ranked[297] == pytest.approx(1), "the 298th of 300: ceil(301 x 0.99)"
    assert ranked[298] > 1


@pytest.mark.parametrize(("held_out", "level"), [(99, 0.99), (57, 0.9)])
def test_as_many_new_galaxies_pass_as_the_level_says(held_out, level):
    """On average over draws of the held-out ones exactly ceil((M + 1) level) / (M + 1) of them do, whatever the distances are like."""
    rng, basis = np.random.default_rng(1), np.eye(5)
    learnt = galaxies(rng, 200, basis)
    passed = [
        (
            Familiarity.fit(learnt, galaxies(rng, held_out, basis), level).unlikeness(galaxies(rng, 500, basis)) <= 1
        ).mean()
        for _ in range(400)
    ]
    expected = np.ceil((held_out + 1) * level - 1e-9) / (held_out + 1)
    assert np.mean(passed) == pytest.approx(expected, abs=4 * np.std(passed) / 20)
    assert np.std(passed) == pytest.approx((level * (1 - level) / held_out) ** 0.5, rel=0.3)


def test_too_few_galaxies_are_refused():
    features = np.random.default_rng(0).normal(size=(99, 8))
    Familiarity.fit(features, features)
    with pytest.raises(
        BadInput, match=r"98 held-out galaxies: to say what 99% of galaxies are like, at least 10 and 99 are"
    ):
        Familiarity.fit(features, features[1:])
    with pytest.raises(BadInput, match="9 training"):
        Familiarity.fit(features[:9], features)


def test_it_is_kept_in_a_small_file_beside_its_weights(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.gamma(1, size=(1200, 1280))
    fitted = Familiarity.fit(features, features[:200] + 0.1)
    with pytest.raises(BadInput, match="cannot be written"):
        fitted.save(tmp_path)
    with pytest.raises(BadInput, match=rf"has no {FILE}; scripts/measure_familiarity.py makes it"):
        Familiarity.load(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({"w": np.ones(3)}, weights)
    fitted.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {weights.name, FILE}
    assert (tmp_path / FILE).stat().st_size < 1e6
    again = Familiarity.load(tmp_path)
    np.testing.assert_array_equal(again.unlikeness(features[:50]), fitted.unlikeness(features[:50]))
    assert (again.level, again.galaxies, again.mean.dtype) == (0.99, (1200, 200), np.float32)
    save_file({"w": np.zeros(3)}, weights)
    with pytest.raises(BadInput, match="belongs to other weights"):
        Familiarity.load(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(BadInput, match="cannot be read"):
        Familiarity.load(tmp_path)


def measure(*arguments):
    """The script in this process, to save the start of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["measure_familiarity", *map(str, arguments)])
        runpy.run_path(str(ROOT / "scripts/measure_familiarity.py"), run_name="__main__")


def test_the_script_measures_the_galaxies_of_a_run(mock_dataset, tmp_path, capsys):
    folder = tmp_path / "run"
    train(folder, dataset=(str(mock_dataset),), epochs=1)
    measure("--run", folder, "--level", 0.8, "--cpu")
    said = capsys.readouterr().out
    model, record = load_run(folder)
    found = Familiarity.load(folder)
    splits = record.dataset["splits"]
    assert found.galaxies == (splits["train"], splits["validation"])
    assert found.mean.shape == (model.head.in_features,)
    assert f"{mock_dataset}: beyond are" in said
    assert f"of {splits['test']} test galaxies" in said
    with pytest.raises(SystemExit, match="at least 10 and 99 are needed"):
        measure("--run", folder, "--cpu")
    assert Familiarity.load(folder).level == 0.8
    with pytest.raises(SystemExit, match=r"--level must be in \(0, 1\)"):
        measure("--run", folder, "--level", 1.0)
