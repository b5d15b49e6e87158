"""One parser of bytes under atheris, which looks for inputs that take new ways through it: python -m tests.fuzz.harness NAME RUNS.

The seeds are the valid files of the tests here. An error of another kind than ours ends the process.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hf_galaxy"]):
    from hf_galaxy.cutouts.answers import check_picture, fits_values
    from hf_galaxy.data.band_files import read_bands
    from hf_galaxy.data.fluxes import decode_fluxes
    from hf_galaxy.data.galaxies import decode
    from hf_galaxy.data.pictures import Rendering
    from hf_galaxy.decision_tree import load_tree
    from hf_galaxy.importing.catalogue_table import CatalogueTable
    from hf_galaxy.importing.column_map import ColumnMap
    from hf_galaxy.reports.run_record import FILE, RunRecord
    from hf_galaxy.settings_file import read

from tests.fuzz import test_fits, test_fluxes, test_pictures, test_run_folders, test_settings, test_tables
from tests.fuzz.cases import answer

PLAIN = Rendering()
FOLDER = Path(tempfile.mkdtemp(prefix="harness-"))


def in_file(name, call, *arguments):
    """A parser of files as one of bytes."""

    def parse(content):
        (FOLDER / name).write_bytes(content)
        answer(call, FOLDER / name, *arguments)

    return parse


def fits(content):
    answer(PLAIN.decode, content, "a.fits", place="a.fits")
    answer(read_bands, content, "a.fits", "g", place="a.fits")
    answer(fits_values, content)


def pictures(content):
    answer(PLAIN.render, content, "a.jpg", place="a.jpg")
    answer(decode, content)
    answer(check_picture, content, 64)


def fluxes(content):
    answer(read_bands, content, "a.npy", ("g", "r"), place="a.npy")
    answer(decode_fluxes, content, ("g", "r"))


def records(content):
    (FOLDER / FILE).write_bytes(content)
    answer(RunRecord.load, FOLDER, place=str(FOLDER))


TEXT = test_run_folders.json.dumps
# Name -> the parser, and valid files.
PARSERS = {
    "fits": (fits, [*test_fits.PACKED[:4], test_fits.image(test_fits.np.arange(12).reshape(3, 4), -32)]),
    "pictures": (pictures, test_pictures.FILES),
    "fluxes": (fluxes, list(test_fluxes.VALID.values())),
    "tables": (in_file("a.csv", CatalogueTable.read_all, "--dataset"), [test_settings.TABLE.encode(), test_tables.in_format(test_tables.SMALL, "parquet"), test_tables.in_format(test_tables.SMALL, "votable")]),
    "trees": (in_file("a.json", load_tree), [(Path(load_tree.__code__.co_filename).parent / "trees/gz2.json").read_bytes()]),
    "maps": (in_file("a.json", ColumnMap.load), [TEXT(test_settings.MAP).encode()]),
    "settings": (in_file("a.yaml", read), [test_settings.yaml.safe_dump(test_settings.OPTIONS).encode()]),
    "records": (records, [TEXT(test_run_folders.RECORD).encode()]),
}  # fmt: skip


def main(name, runs):
    parse, seeds = PARSERS[name]
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(seeds):
        (corpus / str(i)).write_bytes(seed)
    warnings.simplefilter("ignore")
    options = [
        f"-runs={runs}",
        "-rss_limit_mb=4096",
        "-timeout=60",
        "-max_len=20000",
        "-print_final_stats=1",
        f"-artifact_prefix={FOLDER}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
