"""Folders of pictures as rows: with one subfolder per class, or with a table beside the pictures; and zips of such.

galaxies/spiral/a.jpg                      galaxies/a.jpg
galaxies/elliptical/b.fits                 galaxies/metadata.csv: file_name, and any other columns
galaxies/train/spiral/a.jpg                galaxies/train/metadata.jsonl
"""

from __future__ import annotations

from pathlib import PurePosixPath

import datasets

from hf_galaxy.data.picture_files import FLUX_SUFFIXES, Pictures
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset_rows import DatasetRows
from hf_galaxy.importing.folders import Contents
from hf_galaxy.importing.given_splits import usual_split
from hf_galaxy.importing.picture_metadata import FILE, read_metadata
from hf_galaxy.importing.reading import Reading
from hf_galaxy.importing.tables import is_table

LABEL = "label"  # column of the classes
WHOLE = "all"  # split of a folder without splits


def folder_rows(name: str, contents: Contents, reading: Reading) -> DatasetRows:
    """The pictures of a folder or a zip, with their classes or the columns of their table.

    Args:
        name: of the dataset, as it was given.

    Raises:
        BadInput: there are no pictures; they are in no class folders, or in folders within these; or the table is wrong.
    """
    if reading.config:
        raise BadInput(f"--dataset {name}: is a folder of pictures, which has no configurations")
    if reading.images:
        raise BadInput(
            f"--images {reading.images[0]}: is for a table of galaxies; {name} holds its pictures: leave --images out"
        )
    if not contents.pictures:
        held = f" (it holds {others})" if (others := contents.others()) else ""
        fluxes = next((suffix for suffix in FLUX_SUFFIXES if f" {suffix}" in held), None)
        hint = f", or --bands with the names of the bands to read fluxes from {fluxes} files" if fluxes else ""
        raise BadInput(
            f"--dataset {name}: holds neither Parquet files nor pictures{held}; give a folder with a subfolder of pictures for each class{hint}"
        )
    notes, missing = [], []
    if contents.hidden:
        notes.append(f"{contents.hidden:,} pictures that are hidden, or in hidden folders, are left out")
    if others := contents.others(contents.metadata):
        notes.append(f"files that are no pictures by their names are left out: {others}")
    pictures, starts = Pictures([contents.path]), _starts_of_splits(contents)
    if contents.metadata:
        splits, missed, missing = read_metadata(name, contents, pictures, starts, reading.skip_missing)
        if missed:
            notes.append(f"{missed:,} pictures are in no row of {', '.join(contents.metadata)} and are left out")
    else:
        splits = _in_class_folders(name, contents, starts)
    return DatasetRows.read(name, splits, reading, pictures, notes, missing)


def has_labels(contents: Contents) -> bool:
    """Whether there are subfolders, which may be classes, or a table."""
    return bool(contents.metadata) or all("/" in file for file in contents.pictures)


def _starts_of_splits(contents: Contents) -> dict[str, str]:
    """How the paths in each split begin, and its name. A folder has splits if all folders at its top have names of splits."""
    tops = {file.partition("/")[0] if "/" in file else "" for file in contents.pictures}
    if all(map(usual_split, tops)):
        return {f"{top}/": top for top in sorted(tops)}
    if contents.path.is_file() and len(tops) == 1 and "" not in tops:  # the folder that was zipped
        return {f"{tops.pop()}/": WHOLE}
    return {"": WHOLE}


def _in_class_folders(name: str, contents: Contents, starts: dict[str, str]) -> dict[str, datasets.Dataset]:
    """The pictures of each split, and the name of the folder in which each is."""
    depth = next(iter(starts)).count("/")  # of a class folder
    for file in contents.pictures:
        if (within := file.count("/") - depth) != 1:
            raise BadInput(f"--dataset {name}: {file} {_misplaced(within, file)}{_or_table(contents)}")
    classes = sorted({_class_of(file) for file in contents.pictures})
    folders = {PurePosixPath(folder).name for folder in contents.folders if folder.count("/") == depth}
    filled = {PurePosixPath(file).parts[depth] for file in contents.files if file.count("/") > depth}
    if empty := sorted(folders - filled):
        raise BadInput(f"--dataset {name}: class folder {empty[0]} is empty; fill it or remove it")
    if len(classes) == 1:
        raise BadInput(
            f"--dataset {name}: all pictures are of one class, {classes[0]}; make a subfolder for each of several{_or_table(contents)}"
        )
    number = {each: i for i, each in enumerate(classes)}
    features = datasets.Features({FILE: datasets.Value("string"), LABEL: datasets.ClassLabel(names=classes)})
    splits = {}
    for start, split in starts.items():
        files = [file for file in contents.pictures if file.startswith(start)]
        columns = {FILE: files, LABEL: [number[_class_of(file)] for file in files]}
        splits[split] = datasets.Dataset.from_dict(columns, features)
    return splits


def _class_of(file: str) -> str:
    return PurePosixPath(file).parent.name


def _or_table(contents: Contents) -> str:
    """What else to do with a folder that holds a table of its pictures."""
    others = (file for file in contents.files if contents.path.is_dir() and not contents.is_picture(file))
    table = next((file for file in others if is_table(str(contents.path / file))), "")
    return table and f"; or, if {table} is a table of the pictures, give that: --dataset {contents.path / table}"


def _misplaced(within: int, file: str) -> str:
    if within == 0:
        return (
            "is in no class folder; move each picture into a subfolder named after its class, or write a table metadata.csv with the "
            f"columns {FILE} and label"
        )
    return (
        f"is in a folder within a class folder; if {_class_of(file)} is its class, give the folder in which that lies"
    )
