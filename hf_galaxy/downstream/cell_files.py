"""The files of a benchmark: its description, benchmark.json, and one for each cell, or all of them in the records file of a study."""

import math
from pathlib import Path
from typing import Any

from hf_galaxy.errors import BadInput
from hf_galaxy.plain_json import parsed, text_of, texts_of
from hf_galaxy.plain_values import number
from hf_galaxy.reports.records_file import FILE, in_order, read_records

CELLS, ABOUT = "cells", "benchmark.json"  # the folder of cells and the description, in the folder of a benchmark
MOST = 1e150  # the square of a larger number is none
KIND = ["task", "start", "mode", "share"]  # cells of a kind differ only in their seed
_CELL_TYPES = {
    "task": str, "start": str, "mode": str, "share": (int, float), "seed": int, "galaxies": int, "test_galaxies": int,
    "grid": dict, "chosen": (int, float), "hyperparameter": str, "figures": dict, "parameters": int,
    "backbone": str, "seconds": (int, float),
}  # fmt: skip
_ABOUT_TYPES = {
    "title": str, "command": str, "tasks": dict, "starts": dict, "modes": list, "shares": list, "seeds": list,
    "reference": str, "grids": dict, "fixed": dict,
}  # fmt: skip


def read_about(file: Path) -> dict[str, Any]:
    """The description of a benchmark, benchmark.json.

    Raises:
        BadInput: it is missing or broken.
    """
    about = _read(file, _ABOUT_TYPES)
    try:
        for group, lists in (("tasks", ()), ("starts", ("learnt_from",))):
            for each in about[group].values():
                for key in ("title",) if group == "starts" else ("measure", "dataset"):
                    text_of(each, key)
                for key in lists:
                    texts_of(each, key)
        for start in about["starts"].values():
            if not weights_of(start):
                raise ValueError("a start has no weights")
        texts_of(about, "modes")
        _numbers_of(about, "shares")
        _numbers_of(about, "seeds")
    except ValueError as error:
        raise BadInput(f"{file}: is broken: {error}; write it again with the benchmark") from error
    if about["reference"] not in about["starts"]:
        raise BadInput(f"{file}: the reference {about['reference']} is not among the starts")
    return about


def read_cells(folder: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """All cells below a folder, and those of that folder in the records file beside it, in the order of their names.

    Raises:
        BadInput: there is no cell; one is broken, repeated, or of a task, start or mode that `about` lacks; its start was
            pretrained with its task; or cells of the same task, share and seed are not of the same galaxies.
    """
    cells, files, of_seed = [], {}, {}
    paths = {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*.json")}
    recorded = {
        name: cell for name, cell in read_records(folder.parent / FILE).items() if name.startswith(f"{folder.name}/")
    }
    for name in in_order(paths.keys() | recorded.keys()):
        file = folder.parent / name
        cell = _read(file, _CELL_TYPES) if name in paths else _typed(file, recorded[name], _CELL_TYPES)
        _check(file, cell, about)
        kind = tuple(cell[key] for key in (*KIND, "seed"))
        if kind in files:
            raise BadInput(f"{files[kind]} and {file} are the same cell; remove one")
        files[kind] = file
        galaxies = tuple(cell[key] for key in ("galaxies", "test_galaxies")), len(_replicates(cell)[0])
        other, theirs = of_seed.setdefault((cell["task"], cell["share"], cell["seed"]), (file, galaxies))
        if theirs != galaxies:
            raise BadInput(
                f"{other} and {file} are not of the same galaxies, so they cannot be compared; measure one again"
            )
        cells.append(cell)
    if not cells:
        raise BadInput(f"{folder}: contains no cell of a benchmark")
    if len({len(each) for cell in cells for each in _replicates(cell)}) > 1:
        raise BadInput(f"{folder}: its cells have different numbers of replicates; measure them again")
    return cells


def _read(file: Path, types: dict[str, Any]) -> dict[str, Any]:
    try:
        data = parsed(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read as JSON ({error})") from error
    return _typed(file, data, types)


def _typed(file: Path, data: Any, types: dict[str, Any]) -> dict[str, Any]:
    for key, kind in types.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), kind):
            raise BadInput(
                f"{file}: is broken: its {key} is missing or of a wrong type; remove the file, and measure the cell again"
            )
    return data


def _check(file: Path, cell: dict[str, Any], about: dict[str, Any]) -> None:
    for key, group in (("task", "tasks"), ("start", "starts"), ("mode", "modes")):
        if cell[key] not in about[group]:
            raise BadInput(f"{file}: its {key} {cell[key]} is not among those of {ABOUT} ({', '.join(about[group])})")
    task = about["tasks"][cell["task"]]
    if cell["task"] in about["starts"][cell["start"]]["learnt_from"]:
        raise BadInput(f"{file}: {cell['start']} was pretrained with galaxies of {cell['task']}; remove the cell")
    if task["measure"] not in cell["figures"]:
        raise BadInput(f"{file}: lacks the measure of its task, {task['measure']}")
    if "pretraining" in cell and cell["pretraining"] not in range(1, 1 + pretrainings_of(about, cell["start"])):
        raise BadInput(
            f"{file}: its start has no pretraining {cell['pretraining']!r}; remove the file, and measure the cell again"
        )
    for key in ("share", "seed", "galaxies", "test_galaxies", "chosen", "parameters", "seconds"):
        if not _is_number(cell[key]):
            raise BadInput(f"{file}: its {key} is no usual number; remove the file, and measure the cell again")
    try:
        grid = [number(value) for value in cell["grid"]]
    except ValueError:
        grid = []
    if not grid:
        raise BadInput(f"{file}: its grid has other keys than numbers; remove the file, and measure the cell again")
    for name, figure in cell["figures"].items():
        if not isinstance(figure, dict) or not {"model", "baseline", "replicates"} <= figure.keys():
            raise BadInput(f"{file}: {name} lacks a loss, its baseline or replicates; measure it again")
        value, replicates = figure["model"], figure["replicates"]
        least = -math.inf if name == "above_oracle" else -1e-9  # by chance; an excess of 0, rounded
        if (value is None and name == task["measure"]) or (
            value is not None and not (_is_number(value) and value >= least)
        ):
            raise BadInput(f"{file}: {name} is {value}, but losses are numbers of 0 or more; measure it again")
        if not isinstance(replicates, list) or not replicates or not all(map(_is_number_or_none, replicates)):
            raise BadInput(f"{file}: {name} lacks the replicates of a bootstrap; measure it again")
        if not _is_number_or_none(figure["baseline"]):
            raise BadInput(f"{file}: {name} has a baseline that is no number; measure it again")


def weights_of(start: dict[str, Any]) -> tuple[str | None, ...]:
    """The weights of each pretraining of a start of a description; (None,) if they are random.

    Raises:
        ValueError: they are neither a text nor a list of texts.
    """
    weights = start.get("weights", False)
    if weights is None:
        return (None,)
    return texts_of(start, "weights") if isinstance(weights, list) else (text_of(start, "weights"),)


def pretrainings_of(about: dict[str, Any], start: str) -> int:
    """How many pretrainings of a start there are; random weights, which are others for each seed, are as many as seeds."""
    weights = weights_of(about["starts"][start])
    return max(about["seeds"]) if weights == (None,) else len(weights)


def _is_number(value: object) -> bool:
    """Whether a value of JSON is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _numbers_of(about: dict[str, Any], key: str) -> None:
    """Raise a ValueError unless it is a list of numbers."""
    if not about[key] or not all(map(_is_number, about[key])):
        raise ValueError(f"its {key} are no list of numbers")


def _replicates(cell: dict[str, Any]) -> list[list[float | None]]:
    return [figure["replicates"] for figure in cell["figures"].values()]
