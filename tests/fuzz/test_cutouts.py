"""Folders of cutouts and tiles of anybody: what is in them is used as it is, or refused in one line that names the file."""

import json

import numpy as np
from astropy.coordinates import SkyCoord
from hypothesis import example
from hypothesis import strategies as st

from hf_galaxy.cutouts import folder as cutout_folder
from hf_galaxy.cutouts.cutting import Form
from hf_galaxy.cutouts.folder import CutoutFolder
from hf_galaxy.cutouts.positions import Galaxy
from hf_galaxy.cutouts.services import Field
from hf_galaxy.cutouts.tiles import opened
from tests.fuzz.cases import Refused, answer, fuzz, memory_for, own_folder
from tests.fuzz.mutations import changed, damaged
from tests.fuzz.test_fits import changed_cards, image, packed

FOLDER = own_folder()
IMAGES = FOLDER / "cutouts/images"
REQUEST = {"survey": "legacy-dr10", "format": "jpg", "bands": ["g", "r"], "size": 64}
GALAXIES = [Galaxy(name, f"{name}.jpg", Field(150.0 + i, 2.0, 60.0, 64)) for i, name in enumerate("ab")]
ENTRIES = [
    {"id_str": g.id_str, "missing": 0.25, "image": g.image, "ra": g.field.ra, "dec": g.field.dec, "fov_arcsec": 60.0}
    for g in GALAXIES
]


def used(journal, request=REQUEST):
    """Open the folder, and look at the galaxies in it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for galaxy in GALAXIES:
        (IMAGES / galaxy.image).touch()
    (FOLDER / "cutouts" / cutout_folder.JOURNAL).write_bytes(journal)
    (FOLDER / "cutouts" / cutout_folder.REQUEST).write_text(json.dumps(request))

    def look():
        with CutoutFolder.opened(FOLDER / "cutouts", REQUEST) as folder:
            return [folder.missing(galaxy) for galaxy in GALAXIES if folder.has(galaxy)]

    shares = answer(look, place=str(FOLDER))
    if not isinstance(shares, Refused):
        assert all(share is None or 0 <= share <= 1 for share in shares)
    return shares


def lines(entries):
    return "".join(f"{json.dumps(entry)}\n" for entry in entries).encode()


def test_the_folder_that_is_changed_is_whole():
    assert used(lines(ENTRIES)) == [0.25, 0.25]


@fuzz(changed(ENTRIES, changes=3).filter(lambda entries: isinstance(entries, list)))
@example([{"id_str": "a", "image": "a.jpg"}])
@example([ENTRIES[0] | {"missing": "=1+1"}])
@example([[]])
def test_a_journal_is_used_or_refused_with_its_folder(entries):
    used(lines(entries))


@fuzz(damaged(st.just(lines(ENTRIES))))
@example(b"[" * 100_000 + b"\n")
@example(b"\xff\n")
def test_bytes_that_are_no_journal_are_refused_with_their_folder(content):
    used(content)


@fuzz(changed(REQUEST))
@example([])
@example({"survey": "\x1b[2J\n"})
@example(REQUEST | {"": "\ud800"})
def test_a_folder_of_another_request_is_refused(request):
    """Also one with half of a pair of surrogates, which is no text."""
    shares = used(lines(ENTRIES), request)
    same = isinstance(request, dict) and all(
        json.dumps(REQUEST[key]) == json.dumps(request.get(key)) for key in REQUEST
    )
    is_text = not any("\ud800" <= letter <= "\udfff" for letter in json.dumps(request, ensure_ascii=False))
    assert isinstance(shares, Refused) != (same and is_text)


SKY = np.random.default_rng(1).normal(size=(30, 20)).astype(np.float32)
PLACE = Galaxy("a", "a.fits", Field(150.0, 2.0, 8.0, 8))
WCS = [
    ("CTYPE1", "'RA---TAN'"), ("CTYPE2", "'DEC--TAN'"), ("CRVAL1", "150.0"), ("CRVAL2", "2.0"), ("CRPIX1", "10.5"), ("CRPIX2", "15.5"),
    ("CDELT1", "-2.7E-4"), ("CDELT2", "2.7E-4"),
]  # fmt: skip
TILES = [image(SKY, -32, WCS), image((SKY * 100).astype(np.int16), 16, [*WCS, ("BSCALE", "0.01"), ("BLANK", "7")])]


def cut(content):
    file = FOLDER / "tile.fits"
    file.write_bytes(content)

    def look():
        with opened((file,)) as tile:
            places = tile.pixels(SkyCoord([PLACE.field.ra], [PLACE.field.dec], unit="deg"))
            return [bool(tile.shows(places)[0]), *(tile, [each[0] for each in places])]

    with memory_for(2**28):
        looked = answer(look, place=str(file))
        if isinstance(looked, Refused) or not looked[0]:
            return looked
        made = answer(Form("fits", (), 64).file, looked[1], PLACE, looked[2])
    assert isinstance(made, Refused) or 0 <= made[1] <= 0.5
    return made


def test_the_tiles_that_are_changed_show_the_place():
    assert [cut(content)[1] for content in TILES] == [0, 1 / 64]


@fuzz(changed_cards(st.sampled_from(TILES)), share=0.5)
@example(image(SKY, -32, [*WCS[:-2], ("CDELT1", "1E-300"), ("CDELT2", "1E-300")]))
@example(image(SKY, -32, [*WCS[:-2], ("CDELT1", "0"), ("CDELT2", "0")]))
@example(
    image(
        SKY,
        -32,
        [("CTYPE1", "'RA---TAN-SIP'"), ("CTYPE2", "'DEC--TAN-SIP'"), *WCS[2:], ("A_ORDER", "2"), ("A_2_0", "1E300")],
    )
)
@example(image(SKY, -32, [*WCS, ("CUNIT1", "'parsec'")]))
@example(packed(SKY, "RICE_1"))
@example(b"")
@example(image(SKY, -32, WCS).replace(b"NAXIS   =                    2", b"NAXIS   =           2147483647"))
def test_a_tile_gives_cutouts_or_is_refused_in_one_line(content):
    cut(content)
