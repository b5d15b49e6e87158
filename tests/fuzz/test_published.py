"""What datasets and models of anybody have beside their rows and weights: statistics and image processors."""

import json

import pytest
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.data.card_facts import STATISTICS, read_statistics
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.models.backbones import _processor_normalisation
from tests.fuzz.cases import Refused, answer, fuzz, own_folder
from tests.fuzz.mutations import changed, damaged

FOLDER = own_folder()
VALID = {
    "galaxies": {"train": 5}, "values": {"redshift": {"least": 0.1}}, "fluxes": {"bands": ["g", "r"]}, "license": "mit", "notes": ["a"],
    "arcsec": 20.0, "name": "mine", "command": "publish", "rendering": {"stretch": "asinh", "size": 64, "rgb": [2, 1, 0]},
}  # fmt: skip


def check(content):
    (FOLDER / STATISTICS).write_bytes(content)
    statistics = answer(read_statistics, FOLDER / STATISTICS, errors=ValueError)
    if isinstance(statistics, Refused):
        return
    assert statistics == json.loads(content)
    assert isinstance(hash(statistics.get("license")), int)
    assert all(isinstance(note, str) for note in statistics.get("notes", []))
    assert 0 <= statistics.get("arcsec", 0) < 1e5
    Rendering.of(statistics.get("rendering"))


@fuzz(changed(VALID, changes=3))
@example(VALID)
@example(VALID | {"rendering": 5})
@example(VALID | {"rendering": None})
@example(VALID | {"license": []})
@example(VALID | {"values": None})
def test_statistics_have_their_types_or_are_refused(statistics):
    check(json.dumps(statistics).encode())


@fuzz(damaged(st.just(json.dumps(VALID).encode())))
@example(b"[" * 100_000)
def test_bytes_that_are_no_statistics_are_refused(content):
    check(content)


PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2],
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2,
}  # fmt: skip


@pytest.mark.usefixtures("quiet")
def test_the_processor_that_is_changed_is_whole():
    assert normalisation(PROCESSOR) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


def normalisation(fields):
    (FOLDER / "preprocessor_config.json").write_text(json.dumps(fields))
    return _processor_normalisation(str(FOLDER))


@fuzz(changed(PROCESSOR), share=0.5)
@example(PROCESSOR | {"image_mean": None})
@example(PROCESSOR | {"image_std": [0, 0, 0]})
@example(PROCESSOR | {"image_mean": "abc"})
@example([])
def test_a_processor_states_three_colours_or_those_of_imagenet_are_taken(fields):
    mean, std = normalisation(fields)
    assert len(mean) == len(std) == 3
    assert min(std) > 0
