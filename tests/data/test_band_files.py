"""Fluxes are read from every format as other libraries read them, and pixels that masks and weights call bad have no value."""

import gzip
import io
import struct
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from safetensors.numpy import save

from hf_galaxy.data import band_layers
from hf_galaxy.data.band_cells import encoded_cell
from hf_galaxy.data.band_files import read_bands, read_file_of_each_band
from hf_galaxy.data.band_names import check_bands, names_band
from hf_galaxy.errors import BadInput

BANDS = ("g", "r", "i", "z")
CUBE = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)


def fits_file(*hdus, primary=True):
    file = io.BytesIO()
    with_primary = [fits.PrimaryHDU(), *hdus] if primary else hdus
    fits.HDUList(list(with_primary)).writeto(file)
    return file.getvalue()


def cube_file(cube=CUBE, **header):
    hdu = fits.PrimaryHDU(cube)
    hdu.header.update(header)
    return fits_file(hdu, primary=False)


def image(values, name, **header):
    hdu = fits.ImageHDU(values)
    hdu.header.update({"EXTNAME": name} | header)
    return hdu


def saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(values, **options):
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def hdf5(attributes=None, **arrays):
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for name, values in arrays.items():
            opened.create_dataset(name, data=values, compression="gzip")
        opened.attrs.update(attributes or {})
    return file.getvalue()


def tiff(pages):
    file = io.BytesIO()
    first, *others = map(Image.fromarray, pages)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def compressed():
    hdus = [fits.CompImageHDU(plane, name=f"DES-{band}") for band, plane in zip(BANDS, CUBE, strict=True)]
    return fits_file(*hdus)


def planes(content, bands=BANDS):
    return np.stack(list(read_bands(content, "galaxy", bands).planes.values()))


named = dict(zip(BANDS, CUBE, strict=True))
FORMATS = {
    "FITS cube": cube_file(),
    "FITS cube, gzipped": gzip.compress(cube_file()),
    "FITS cube of Legacy Surveys": cube_file(CUBE[::-1].copy(), BANDS="zirg"),
    "FITS cube with numbered bands": cube_file(CUBE[::-1].copy(), BAND1="z", BAND2="i", BAND3="r", BAND4="g"),
    "FITS extensions by EXTNAME": fits_file(*(image(named[b], f"SCI_{b}") for b in "rgzi")),
    "FITS extensions by FILTER": fits_file(
        *(image(named[b], "SCI", FILTER=f"{b} DECam SDSS c0001 4720.0 1520.0") for b in "rgzi")
    ),
    "FITS extensions in order": fits_file(*(image(plane, "SCI") for plane in CUBE)),
    "FITS axes of length 1": cube_file(CUBE[None]),
    "npy": npy(CUBE),
    "npy, gzipped": gzip.compress(npy(CUBE)),
    "npy, bands last": npy(np.moveaxis(CUBE, 0, -1)),
    "npy, float64, big-endian": npy(CUBE.astype(">f8")),
    "npz by keys": saved(**{band: named[band] for band in "zirg"}),
    "npz of a cube": saved(flux=CUBE[::-1], bands=["z", "i", "r", "g"]),
    "HDF5 by datasets": hdf5(**{f"HSC-{band.upper()}": named[band] for band in "zirg"}),
    "HDF5 of a cube": hdf5({"bands": ["z", "i", "r", "g"]}, image=CUBE[::-1]),
    "HDF5 without names": hdf5(flux=CUBE),
    "safetensors": save(named),
    "TIFF of pages": tiff(CUBE),
}


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_planes(content):
    picture = read_bands(content, "galaxy", BANDS)
    assert list(picture.planes) == list(BANDS)
    assert np.array_equal(np.stack(list(picture.planes.values())), CUBE)
    assert all(plane.dtype == np.float32 for plane in picture.planes.values())
    assert picture.missing == 0
    assert picture.remarks == ()


def test_a_compressed_file_is_read_as_astropy_reads_it():
    content = compressed()
    with fits.open(io.BytesIO(content)) as hdus:
        expected = np.stack([hdus[f"DES-{band}"].data for band in BANDS])
    assert np.array_equal(planes(content), expected)


@pytest.mark.parametrize("name", ["FITS cube of Legacy Surveys", "npz by keys", "HDF5 of a cube", "safetensors"])
def test_some_bands_of_those_that_have_names_are_chosen_in_any_order(name):
    assert np.array_equal(planes(FORMATS[name], ("z", "g")), CUBE[[3, 0]])


@pytest.mark.parametrize(
    ("text", "band", "named"),
    [
        ("g", "g", True), ("DES g", "g", True), ("SDSS-r", "r", True), ("HSC-G", "g", True), ("r.MP9602", "r", True),
        ("g.00000", "g", True), ("NIR-Y", "NIR_Y", True), ("f200w", "F200W", True), ("WHT_G", "g", True), ("u'", "u'", True),
        ("IMAGE", "g", False), ("F200W", "F2", False), ("SCI", "i", False), ("", "g", False), ("Ks", "K", False),
    ],
)  # fmt: skip
def test_names_of_surveys_are_understood(text, band, named):
    assert bool(names_band(text, band)) is named


def test_the_exact_name_goes_before_one_in_other_letters():
    content = fits_file(image(CUBE[0], "y"), image(CUBE[1], "Y"))
    assert np.array_equal(planes(content, ("Y", "y")), CUBE[[1, 0]])


@pytest.mark.parametrize(
    ("content", "bands", "message"),
    [
        (cube_file(BANDS="griz"), ("g", "u"), r"galaxy: cannot be read as a picture \(has no band u; it has g, r, i, z\)"),
        (cube_file(), ("g", "r"), r"--bands g r: it has 4 planes without names \(shape \(4, 6, 8\)\)"),
        (fits_file(image(CUBE[0], "DES-g"), image(CUBE[1], "DES-r")), ("r", "z"), "has no band z; it has DES-g, DES-r"),
        (fits_file(image(CUBE[0], "g"), image(CUBE[1], "g")), ("g",), "which plane is band g cannot be told; it has g, g"),
        (fits_file(image(CUBE[0], "g"), image(CUBE[1, :3], "r")), ("g", "r"), "several sizes: g 8 x 6, r 8 x 3"),
        (saved(a=CUBE[0], b=CUBE[1]), ("g", "r", "z"), "--bands g r z: it has a, b"),
        (fits_file(image(CUBE[0], "")), ("g", "r"), "it has 1 plane without names .*; files of one band each need a table"),
        (fits_file(), ("g",), "it has no picture of fluxes"),
        (npy(np.zeros(5)), ("g",), "it has no picture of fluxes"),
        (npy(np.zeros((4, 0, 3))), BANDS, r"an array of shape \(4, 0, 3\) is empty or too large"),
        (npy(np.zeros((4, 2, 3), complex)), BANDS, "holds complex128, no numbers"),
        (npy(np.full((4, 2, 3), np.inf)), BANDS, "no pixel has a value in any band"),
        (npy(np.full((4, 2, 3), 1e300)), BANDS, "no pixel has a value in any band"),
        (b"no picture", ("g",), "is neither FITS, npy, npz, HDF5 nor safetensors"),
        (b"", ("g",), "is neither FITS, npy, npz, HDF5 nor safetensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_what_there_is_is_named(content, bands, message):
    with pytest.raises(BadInput, match=message):
        read_bands(content, "galaxy", bands)


def test_planes_with_other_names_are_taken_in_order_and_that_is_said():
    content = fits_file(image(CUBE[0], "F115W"), image(CUBE[1], "F200W"))
    picture = read_bands(content, "galaxy", ("blue", "red"))
    assert np.array_equal(picture.planes["red"], CUBE[1])
    assert picture.remarks == ("the bands blue, red are what the files call F115W, F200W, in this order",)


@pytest.mark.parametrize("pedestal", [0, 32768])
def test_whole_numbers_become_floats(pedestal):
    counts = np.arange(4 * 48, dtype=np.uint16).reshape(4, 6, 8) + pedestal
    assert np.array_equal(planes(cube_file(counts)), counts.astype(np.float32))
    assert np.array_equal(planes(tiff(counts)), counts.astype(np.float32))
    scaled = fits.PrimaryHDU(np.arange(48, dtype=np.int16).reshape(1, 6, 8))
    scaled.header.update(BSCALE=0.5, BZERO=3, BLANK=7)
    (plane,) = planes(fits_file(scaled, primary=False), ("g",))
    expected = 3 + 0.5 * np.arange(48).reshape(6, 8)
    expected[0, 7] = np.nan
    assert np.array_equal(plane, expected, equal_nan=True)


def test_pictures_of_8_bits_are_floats_as_they_are():
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for values, bands in ((pixels, ("r", "g", "b")), (pixels[..., 0], ("g",))):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "PNG")
        expected = np.moveaxis(values.reshape(6, 8, -1), -1, 0)
        picture = read_bands(file.getvalue(), "galaxy", bands)
        assert np.array_equal(np.stack(list(picture.planes.values())), expected)
        eight = "the bands have 8 bits: numbers from 0 to 255, as of pictures for people, which are no fluxes"
        colours = "the bands r, g, b are what the files call red, green, blue, in this order"
        assert picture.remarks == ((colours, eight) if len(bands) == 3 else (eight,))


def test_colours_of_16_bits_and_transparency_are_refused():
    chunk = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(b"\0" * 7)
    file = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", chunk) + part(b"IDAT", pixels) + part(b"IEND", b"")
    with pytest.raises(BadInput, match="colours of 16 bits, of which only 8 could be read"):
        read_bands(file, "galaxy.png", ("r", "g", "b"))
    transparent = io.BytesIO()
    Image.new("RGBA", (4, 4)).save(transparent, "PNG")
    with pytest.raises(BadInput, match="mode RGBA is neither grey nor RGB"):
        read_bands(transparent.getvalue(), "galaxy.png", ("r", "g", "b"))


# Scale


@pytest.mark.parametrize("angle", [0, 30])
@pytest.mark.parametrize("matrix", ["CD", "PC"])
def test_the_scale_is_that_of_the_world_coordinates(angle, matrix):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [4, 3]
    turn = np.deg2rad(angle)
    rotation = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if matrix == "CD":
        wcs.wcs.cd = 0.262 / 3600 * rotation
    else:
        wcs.wcs.pc, wcs.wcs.cdelt = rotation, [0.262 / 3600] * 2
    hdu = fits.PrimaryHDU(CUBE, header=wcs.to_header())
    if matrix == "CD":
        hdu.header = fits.PrimaryHDU(CUBE).header
        for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
            hdu.header[f"CD{i}_{j}"] = wcs.wcs.cd[i - 1, j - 1]
        hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150, CRVAL2=2, CRPIX1=4, CRPIX2=3)
    picture = read_bands(fits_file(hdu, primary=False), "galaxy", BANDS)
    corners = wcs.pixel_to_world([3, 4], [2, 2])
    assert picture.arcsec_per_pixel == pytest.approx(0.262, rel=1e-6)
    assert picture.arcsec_per_pixel == pytest.approx(corners[0].separation(corners[1]).to_value(units.arcsec), rel=1e-3)


@pytest.mark.parametrize(
    "header",
    [{}, {"CTYPE1": "WAVE"}, {"CTYPE1": "RA---TAN"}, {"CTYPE1": "RA---TAN", "CTYPE2": "nonsense", "CD1_1": 0.0}],
)
def test_without_world_coordinates_the_scale_is_unknown(header):
    assert read_bands(cube_file(**header), "galaxy", BANDS).arcsec_per_pixel is None


def test_a_cutout_in_safetensors_or_hdf5_keeps_its_scale():
    for content in (save(named, {"arcsec_per_pixel": "0.2"}), hdf5({"arcsec_per_pixel": 0.2}, **named)):
        assert read_bands(content, "galaxy", BANDS).arcsec_per_pixel == 0.2


# Masks

BAD = np.zeros((6, 8), int)
BAD[1, 2] = BAD[4, 5] = 1


def where_missing(content, bands=BANDS):
    return np.isnan(planes(content, bands))


def test_pixels_that_are_not_finite_have_no_value():
    cube = CUBE.copy()
    cube[0, 0, 0], cube[1, 2, 3], cube[3, 5, 7] = np.nan, np.inf, -np.inf
    picture = read_bands(cube_file(cube), "galaxy", BANDS)
    assert np.array_equal(np.isnan(np.stack(list(picture.planes.values()))), ~np.isfinite(cube))
    assert picture.missing == 3


@pytest.mark.parametrize("name", ["WHT", "WEIGHT", "IVAR", "INVVAR"])
def test_pixels_without_weight_have_no_value_in_all_bands(name):
    missing = where_missing(fits_file(image(CUBE, "SCI"), image(1.0 - BAD, name)))
    assert np.array_equal(missing, np.stack([BAD] * 4).astype(bool))
    unknown = np.where(BAD, np.nan, 1)
    assert np.array_equal(where_missing(fits_file(image(CUBE, "SCI"), image(unknown, name))), missing)


def test_each_band_has_its_weight_by_plane_by_name_or_by_order():
    weight = np.ones((4, 6, 8), np.float32)
    weight[0, 1, 1], weight[2, 3, 3] = 0, -1
    by_plane = fits_file(image(CUBE, "SCI"), image(weight, "IVAR"))
    by_name = fits_file(
        *(image(named[b], b) for b in BANDS), *(image(weight[BANDS.index(b)], f"WHT_{b}") for b in "zirg")
    )
    pairs = [
        [image(c, "SCI", FILTER=f"F{i}W"), image(w, "WHT")] for i, (c, w) in enumerate(zip(CUBE, weight, strict=True))
    ]
    by_order = fits_file(*(hdu for pair in pairs for hdu in pair))
    for content, bands in ((by_plane, BANDS), (by_name, BANDS), (by_order, ("F0W", "F1W", "F2W", "F3W"))):
        assert np.array_equal(where_missing(content, bands), weight <= 0)
    assert np.array_equal(where_missing(by_order, ("F2W", "F0W")), weight[[2, 0]] <= 0)
    assert np.array_equal(where_missing(save(named | {"weight g": weight[0]}))[0], weight[0] <= 0)


def test_a_mask_of_0_and_1_marks_bad_pixels():
    for mask in (image(BAD.astype(np.uint8), "MASK"), image(BAD.astype(np.float32), "MSK")):
        assert np.array_equal(where_missing(fits_file(image(CUBE, "SCI"), mask))[2], BAD.astype(bool))


def test_a_mask_of_lsst_leaves_the_galaxies():
    bits = {
        "MP_BAD": 0,
        "MP_SAT": 1,
        "MP_INTRP": 2,
        "MP_CR": 3,
        "MP_EDGE": 4,
        "HIERARCH MP_DETECTED": 5,
        "HIERARCH MP_NO_DATA": 8,
    }
    mask = np.zeros((6, 8), np.int32)
    for column, bit in enumerate(bits.values()):
        mask[2, column] = 1 << bit
    mask[4] = 1 << bits["HIERARCH MP_DETECTED"]
    mask[4, 1] |= 1 << bits["MP_SAT"]
    content = fits_file(image(CUBE[0], "IMAGE"), image(mask, "MASK", **bits), image(CUBE[1], "VARIANCE"))
    expected = np.zeros((6, 8), bool)
    expected[2, [0, 1, 3, 6]] = expected[4, 1] = True
    picture = read_bands(content, "galaxy", ("i",))
    assert np.array_equal(np.isnan(picture.planes["i"]), expected)
    assert picture.remarks == ()
    only_detected = fits_file(
        image(CUBE[0], "IMAGE"), image(np.ones((6, 8), np.int32), "MASK", **{"HIERARCH MP_DETECTED": 0, "MP_BAD": 1})
    )
    assert not where_missing(only_detected, ("i",)).any()


def test_of_the_quality_of_jwst_only_do_not_use_counts():
    quality = np.zeros((6, 8), np.uint32)
    quality[0, 0], quality[1, 1], quality[2, 2] = 1, 4, 5
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = "JWST"
    content = fits_file(primary, image(CUBE[0], "SCI"), image(CUBE[1], "ERR"), image(quality, "DQ"), primary=False)
    assert np.argwhere(where_missing(content, ("F200W",))[0]).tolist() == [[0, 0], [2, 2]]
    of_hubble = fits_file(image(CUBE[0], "SCI"), image(quality, "DQ"))
    picture = read_bands(of_hubble, "galaxy", ("F814W",))
    assert picture.missing == 0
    (remark,) = picture.remarks
    assert remark.startswith("mask DQ is not used, as the meaning of its bits is unknown")


def test_masks_that_belong_nowhere_are_named():
    content = fits_file(image(CUBE, "SCI"), image(np.zeros((3, 3), np.uint8), "MASK"))
    assert read_bands(content, "galaxy", BANDS).remarks == (
        "mask MASK is not used: it has another size than the bands",
    )
    content = fits_file(image(CUBE, "SCI"), *(image(BAD.astype(np.uint8), "MASK") for _ in range(2)))
    (remark,) = read_bands(content, "galaxy", BANDS).remarks
    assert remark == "mask MASK is not used: it cannot be told to which bands it belongs"


def test_a_galaxy_without_one_band_stays():
    cube = CUBE.copy()
    cube[1] = np.nan
    picture = read_bands(cube_file(cube), "galaxy", BANDS)
    assert np.isnan(picture.planes["r"]).all()
    assert picture.missing == 48


# One file for each band


def test_a_file_of_each_band_gives_the_planes_of_one_file():
    files = {band: (cube_file(named[band], FILTER="unknown"), f"a_{band}.fits") for band in BANDS}
    picture = read_file_of_each_band(files)
    assert np.array_equal(np.stack(list(picture.planes.values())), CUBE)
    assert picture.remarks == ()
    files["r"] = (cube_file(CUBE[0, :4]), "a_r.fits")
    with pytest.raises(BadInput, match=r"one galaxy have several sizes: a_g.fits 8 x 6, a_r.fits 8 x 4, a_i.fits"):
        read_file_of_each_band(files)
    nothing = np.full((6, 8), np.nan, np.float32)
    files = {band: (cube_file(nothing), f"a_{band}.fits") for band in "gr"}
    with pytest.raises(BadInput, match=r"a_g.fits, a_r.fits: cannot be read as a picture \(no pixel has a value"):
        read_file_of_each_band(files)
    files["r"] = (cube_file(CUBE[0]), "a_r.fits")
    assert read_file_of_each_band(files).missing == 48


# Hostile files


def test_hdf5_needs_its_extra(monkeypatch):
    content = hdf5(**named)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadInput, match=r"galaxy.h5: .*needs h5py: pip install 'hf_galaxy\[hdf5\]'"):
        read_bands(content, "galaxy.h5", BANDS)


def test_pickles_are_not_loaded():
    objects = np.array([[{}], [{}]], dtype=object)
    for content in (npy(objects, allow_pickle=True), saved(g=objects)):
        with pytest.raises(BadInput, match="pickled Python objects, which could run any code"):
            read_bands(content, "galaxy", ("g",))


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files_are_refused(name):
    content = FORMATS[name]
    for length in (len(content) // 2, 40):
        with pytest.raises(BadInput, match=r"^galaxy: "):
            read_bands(content[:length], "galaxy", BANDS)


def huge_npy():
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1000000, 1000000), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def huge_fits():
    content = bytearray(cube_file())
    for axis in (b"NAXIS1  =", b"NAXIS2  ="):
        place = content.index(axis) + 10
        content[place : place + 20] = b"%20d" % 10**6
    return bytes(content)


def huge_hdf5():
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened.create_dataset("flux", (4, 10**6, 10**6), "f4", chunks=(1, 1000, 1000))
    return file.getvalue()


@pytest.mark.parametrize("make", [huge_npy, huge_fits, huge_hdf5])
def test_what_a_header_only_claims_takes_no_memory(make):
    with pytest.raises(BadInput, match=r"^galaxy: .*(truncated|too large|more than)"):
        read_bands(make(), "galaxy", BANDS)


def test_a_file_that_expands_beyond_measure_is_refused(monkeypatch):
    monkeypatch.setattr(band_layers, "MAX_BYTES", 10_000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("g.npy", npy(np.zeros((100, 100))))
    for content in (gzip.compress(npy(np.zeros((100, 100)))), bomb.getvalue()):
        with pytest.raises(BadInput, match="is larger than 1 GiB"):
            read_bands(content, "galaxy", ("g",))


def test_links_and_virtual_datasets_of_hdf5_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = CUBE
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")
        layout = h5py.VirtualLayout(CUBE.shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", CUBE.shape)
        opened.create_virtual_dataset("virtual", layout)
        opened["circle"] = h5py.SoftLink("/")
    with pytest.raises(BadInput, match="it has no picture of fluxes"):
        read_bands(file.getvalue(), "galaxy", BANDS)


# Cells


def of_multimodal_universe(**changes):
    return {
        "band": [f"des-{band}" for band in BANDS], "flux": CUBE.tolist(), "ivar": np.ones_like(CUBE).tolist(),
        "mask": np.ones_like(CUBE, bool).tolist(), "psf_fwhm": [1.0] * 4, "scale": [0.262] * 4,
    } | changes  # fmt: skip


CELLS = {
    "array": CUBE,
    "lists": CUBE.tolist(),
    "bands last": np.moveaxis(CUBE, 0, -1),
    "by band": named,
    "bytes": cube_file(),
    "struct": {"bytes": cube_file(), "path": None},
    "as MultimodalUniverse": of_multimodal_universe(),
    "a list of bands": [{"band": band, "array": named[band], "scale": 0.262} for band in BANDS],
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_cells_of_every_form_are_read(cell):
    assert np.array_equal(planes(encoded_cell(cell)), CUBE)


def test_cells_of_multimodal_universe_have_weights_and_a_scale():
    weights = np.ones_like(CUBE)
    weights[1, 2, 3] = 0
    picture = read_bands(encoded_cell(of_multimodal_universe(ivar=weights.tolist())), "galaxy", BANDS)
    assert picture.arcsec_per_pixel == 0.262
    assert picture.missing == 1
    assert np.isnan(picture.planes["r"][2, 3])


def test_none_in_a_list_is_no_value():
    cube = CUBE.tolist()
    cube[0][1][2] = None
    assert np.isnan(planes(encoded_cell(cube))[0, 1, 2])


@pytest.mark.parametrize(
    "cell", ["text", [1, 2], [[1, 2], [3]], {"band": ["g", "g"], "flux": CUBE[:2]}, {"g": None}, 5]
)
def test_other_cells_are_refused(cell):
    with pytest.raises(BadInput):
        planes(encoded_cell(cell), ("g",))


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((), "are 0; name 1 to 8"), (tuple("abcdefghi"), "are 9"), (("g", "g"), "g is there twice"),
        (("g,r",), "'g,r' is no name of a band"), (("{band}",), "is no name"), (("../g",), "is no name"), (("__metadata__",), "is no name"),
    ],
)  # fmt: skip
def test_names_of_bands_are_checked(bands, message):
    with pytest.raises(BadInput, match=f"^--bands .*{message}"):
        check_bands(bands)
