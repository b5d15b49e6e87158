"""What is called unfamiliar is what a brute-force neighbour search finds far off, as often as the level says; and of its own weights only."""

import io
import runpy
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.views import eval_view
from hf_galaxy.errors import BadInput
from hf_galaxy.models.familiarity import (
    COMPONENTS,
    FILE,
    NEIGHBOUR,
    SAMPLE,
    SHRINKAGE,
    Descriptors,
    Familiarity,
    looks_of,
)
from hf_galaxy.models.start import load_run
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology
from hf_galaxy.training.settings import settings_of
from hf_galaxy.training.sources import open_sources
from tests.conftest import ROOT
from tests.training.runs import run as train

D, L = 200, 6
MIXED = np.random.default_rng(9).normal(size=(L, L))


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def galaxies(rng, number, basis):
    """Features of as many directions as there are components, some far wider than others; and correlated looks, far from 0."""
    features = (rng.gamma(2, size=(number, len(basis))) * np.linspace(0.2, 3, len(basis))) @ basis
    return Descriptors(features, rng.gamma(2, size=(number, L)) @ MIXED - 30)


def test_it_is_the_distance_from_the_kth_nearest_neighbour():
    """All directions are kept, and all galaxies: then it is that of scikit-learn; of looks, in the metric of Mahalanobis."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, COMPONENTS + 1)))[0].T
    basis, other = axes[:COMPONENTS], axes[COMPONENTS:]
    learnt, held_out = galaxies(rng, SAMPLE - 100, basis), galaxies(rng, 300, basis)
    fitted = Familiarity.fit(learnt, held_out, 0.9)
    by_features = NearestNeighbors(n_neighbors=NEIGHBOUR, algorithm="brute").fit(unit(learnt.features))
    spread = learnt.looks.std(axis=0)
    metric = np.linalg.inv(np.cov(learnt.looks / spread, rowvar=False) + SHRINKAGE * np.eye(L))
    by_looks = NearestNeighbors(
        n_neighbors=NEIGHBOUR, algorithm="brute", metric="mahalanobis", metric_params={"VI": metric}
    ).fit(learnt.looks / spread)

    def expected(seen):
        """In units of the 286th of 300: ceil(301 x 0.95), since each has half of what is strange."""
        distances = [
            [search.kneighbors(points)[0][:, -1] for points in (asked, others)]
            for search, asked, others in (
                (by_features, unit(seen.features), unit(held_out.features)),
                (by_looks, seen.looks / spread, held_out.looks / spread),
            )
        ]
        return np.maximum(*(asked / np.sort(others)[285] for asked, others in distances))

    known = galaxies(rng, 50, basis)
    stranger = known.features + 100 * rng.uniform(0, 1, (50, 1)) @ other  # something that no galaxy has
    for asked in (
        known,
        held_out,
        Descriptors(100 * known.features, known.looks),
        Descriptors(stranger, known.looks),
        Descriptors(known.features, known.looks + 3),
    ):
        np.testing.assert_allclose(fitted.ood_score(*asked), expected(asked), rtol=1e-3)
    assert fitted.ood_score(stranger, known.looks).max() > 1.5
    assert fitted.ood_score(known.features, known.looks + 3).min() > 1


@pytest.mark.parametrize(("held_out", "level"), [(199, 0.99), (57, 0.9)])
def test_as_many_new_galaxies_pass_as_the_level_says(held_out, level):
    """On average over draws of the held-out ones exactly ceil((M + 1) (1 + level) / 2) / (M + 1) pass by either, whatever the
    distances are like; here features and looks have nothing to do with each other, so that their shares multiply.
    """
    rng, basis = np.random.default_rng(1), np.eye(5)
    learnt = galaxies(rng, 200, basis)
    passed = [
        (
            Familiarity.fit(learnt, galaxies(rng, held_out, basis), level).ood_score(*galaxies(rng, 500, basis)) <= 1
        ).mean()
        for _ in range(400)
    ]
    expected = (np.ceil((held_out + 1) * (1 + level) / 2 - 1e-9) / (held_out + 1)) ** 2
    assert expected >= level
    assert np.mean(passed) == pytest.approx(expected, abs=4 * np.std(passed) / 20)
    assert np.std(passed) == pytest.approx((level * (1 - level) / held_out) ** 0.5, rel=0.3)


def test_what_never_varies_is_strange_once_it_does():
    """Grey galaxies have no colours; rounding does not make them strange, but colours do."""
    rng = np.random.default_rng(0)
    seen = Descriptors(rng.gamma(2, size=(500, 8)), np.column_stack([rng.normal(size=(500, 3)), np.full(500, 1e-3)]))
    fitted = Familiarity.fit(Descriptors(*(each[:250] for each in seen)), Descriptors(*(each[250:] for each in seen)))
    assert (fitted.ood_score(seen.features, np.add(seen.looks, [0, 0, 0, 1e-4])) <= 1).mean() > 0.98
    assert (fitted.ood_score(seen.features, np.add(seen.looks, [0, 0, 0, 0.1])) > 1).all()


def test_too_few_galaxies_are_refused():
    rng = np.random.default_rng(0)
    seen = Descriptors(rng.normal(size=(199, 8)), rng.normal(size=(199, 4)))
    fewer = Descriptors(*(each[1:] for each in seen))
    Familiarity.fit(seen, seen)
    with pytest.raises(BadInput, match=r"198 held-out galaxies: a level of 99% needs at least 5 and 199"):
        Familiarity.fit(seen, fewer)
    with pytest.raises(BadInput, match="4 training"):
        Familiarity.fit(Descriptors(*(each[:4] for each in seen)), seen)


def drawn(rng, number):
    """Views of drawn galaxies."""
    jpegs = (draw(draw_morphology(rng), CAMPAIGNS[0].imaging, 64, rng) for _ in range(number))
    return (
        np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs]).transpose(0, 3, 1, 2)
        / 255
    )


def test_pictures_that_a_network_may_find_familiar_are_told_by_their_looks():
    """A backbone that sees nothing: its features are as likely of any picture as of any other."""
    rng = np.random.default_rng(0)

    def seen(views):
        return Descriptors(rng.normal(size=(len(views), 8)), looks_of(views))

    fitted = Familiarity.fit(seen(drawn(rng, 200)), seen(drawn(rng, 99)), 0.96)
    fresh = drawn(rng, 100)
    assert (fitted.ood_score(*seen(fresh)) > 1).mean() < 0.12
    board = np.indices((64, 64)).sum(axis=0) // 8 % 2
    strange = {
        "noise": rng.uniform(size=(20, 3, 64, 64)),
        "flat": np.broadcast_to(rng.uniform(size=(20, 3, 1, 1)), (20, 3, 64, 64)),
        "board": np.broadcast_to(board, (1, 3, 64, 64)),
        "negative": 1 - fresh,
    }
    for name, views in strange.items():
        assert (fitted.ood_score(*seen(views)) > 1).all(), name


def test_it_is_kept_in_a_small_file_beside_its_weights(tmp_path):
    rng = np.random.default_rng(0)
    seen = Descriptors(rng.gamma(1, size=(1400, 1280)), rng.gamma(1, size=(1400, 15)))
    fitted = Familiarity.fit(Descriptors(*(each[:1200] for each in seen)), Descriptors(*(each[1200:] for each in seen)))
    with pytest.raises(BadInput, match="cannot be written"):
        fitted.save(tmp_path)
    with pytest.raises(BadInput, match=rf"has no {FILE}; hf-galaxy familiarity"):
        Familiarity.load(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({"w": np.ones(3)}, weights)
    fitted.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {weights.name, FILE}
    assert (tmp_path / FILE).stat().st_size < 1e6
    again = Familiarity.load(tmp_path)
    some = Descriptors(*(each[1150:1250] for each in seen))
    np.testing.assert_array_equal(again.ood_score(*some), fitted.ood_score(*some))
    assert (again.level, again.galaxies, again.features.mean.dtype) == (0.99, (1200, 200), np.float32)
    save_file({"w": np.zeros(3)}, weights)
    with pytest.raises(BadInput, match="belongs to other weights"):
        Familiarity.load(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(BadInput, match="cannot be read"):
        Familiarity.load(tmp_path)


def test_a_file_from_before_there_were_looks_is_refused_in_words(tmp_path):
    said = '{"neighbour": 10, "threshold": 0.5, "level": 0.99, "galaxies": [7076, 910]}'
    arrays = {"mean": np.zeros(4), "components": np.eye(4), "kept": np.zeros((10, 4)), "rest": np.zeros(10)}
    save_file(arrays, tmp_path / FILE, {"said": said, "weights_sha256": "0" * 64})
    with pytest.raises(BadInput, match=r"without looks; .*hf-galaxy familiarity"):
        Familiarity.load(tmp_path)


def measure(*arguments):
    """The script in this process, to save the start of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["measure_familiarity", *map(str, arguments)])
        runpy.run_path(str(ROOT / "scripts/measure_familiarity.py"), run_name="__main__")


def test_the_script_measures_the_galaxies_of_a_run(mock_dataset, tmp_path, capsys):
    folder = tmp_path / "run"
    record = train(folder, dataset=(str(mock_dataset),), epochs=1)
    record.settings["an_option_of_the_past"] = 1
    record.save(folder)
    measure("--run", folder, "--level", 0.8, "--cpu")
    said = capsys.readouterr().out
    model, record = load_run(folder)
    found = Familiarity.load(folder)
    splits = record.dataset["splits"]
    assert found.galaxies == (splits["train"], splits["validation"])
    assert found.features.mean.shape == (model.head.in_features,)
    framing = model.config.framing
    sources = open_sources(settings_of(record))
    [rows] = sources.splits["train"]
    learnt = Galaxies(rows, framing, sources.target)
    looks = looks_of(eval_view(learnt[list(range(len(rows)))]["pixels"], framing).numpy())
    np.testing.assert_allclose(found.looks.mean, (looks @ found.whitening).mean(axis=0), rtol=1e-4, atol=1e-5)
    assert f"{mock_dataset}: beyond are" in said
    assert f"of {splits['test']} test galaxies" in said
    with pytest.raises(SystemExit, match="at least 5 and 199"):
        measure("--run", folder, "--cpu")
    assert Familiarity.load(folder).level == 0.8
    with pytest.raises(SystemExit, match=r"--level must be in \(0, 1\)"):
        measure("--run", folder, "--level", 1.0)
