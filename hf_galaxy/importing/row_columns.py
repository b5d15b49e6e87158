"""Which columns of somebody's rows are the picture, the name of the galaxy, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeGuard

import datasets

from hf_galaxy.data.fluxes import FLUX
from hf_galaxy.data.picture_files import FLUX_SUFFIXES, SUFFIXES
from hf_galaxy.data.schema import is_text
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.guess import FLUX_NAMES, ID_NAMES, IMAGE_NAMES, check_named, columns_named_like, named_like

RESERVED = ("id_str", "image")
INTERNAL = ("__url__",)  # of WebDataset: the address of the shard


class Kept(NamedTuple):
    """A column: its type, and where its values are in a row."""

    feature: Any
    path: tuple[str, ...]


def is_binary(feature: object) -> bool:
    """Whether a column of this type holds bytes."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")


def is_whole(feature: object) -> bool:
    """Whether a column of this type holds whole numbers."""
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint"))


def holds_pictures(feature: object) -> bool:
    """Whether a column of this type holds encoded pictures: Image, or a struct of bytes and path."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and is_binary(feature.get("bytes")))


def holds_arrays(feature: Any) -> bool:
    """Whether a column of this type holds arrays of numbers of two dimensions or more, or such of several bands."""
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.Array4D):
        return True
    if isinstance(feature, dict):
        return any(map(holds_arrays, feature.values()))
    within, depth = feature, 0
    while isinstance(within, datasets.List | datasets.LargeList):
        within, depth = within.feature, depth + 1
    if depth and not isinstance(within, datasets.Value):
        return holds_arrays(within)
    return depth >= 2 and within.dtype.startswith(("float", "int", "uint"))


def image_column(
    features: Mapping[str, Any], asked: str | None, first: Callable[[str], Any], name: str, fluxes: bool = False
) -> str:
    """The column of the pictures: bytes, or texts with their paths.

    Args:
        asked: --image-column.
        first: a value of a column.
        name: of the dataset, for messages.
        fluxes: it may hold arrays; these go first.

    Raises:
        BadInput: there is none.
    """
    check_named("--image-column", asked, features, name)
    if asked is not None:
        feature = features[asked]
        arrays = fluxes and holds_arrays(feature)
        if not (arrays or holds_pictures(feature) or is_binary(feature) or is_text(feature)):
            raise BadInput(
                f"--image-column {asked}: holds {described(feature)} in {name}, no pictures, bytes or paths of files"
            )
        return asked
    if fluxes:
        possible = {c: feature for c, feature in features.items() if holds_pictures(feature) or holds_arrays(feature)}
        arrays = [column for column, feature in possible.items() if holds_arrays(feature)]
        if named := named_like(possible, FLUX_NAMES) or named_like(arrays, IMAGE_NAMES) or next(iter(arrays), None):
            return named
    suffixes = (*SUFFIXES, *FLUX_SUFFIXES) if fluxes else SUFFIXES
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    images = images or [column for column, feature in features.items() if holds_pictures(feature)]
    if images:
        return named_like(images, IMAGE_NAMES) or images[0]
    if usual := named_like([column for column, feature in features.items() if is_binary(feature)], IMAGE_NAMES):
        return usual
    for column in columns_named_like([column for column, feature in features.items() if is_text(feature)], IMAGE_NAMES):
        if str(first(column)).lower().endswith(suffixes):
            return column
    if arrays := [column for column, feature in features.items() if holds_arrays(feature)]:
        raise BadInput(
            f"--dataset {name}: no column holds pictures, but {', '.join(arrays)} arrays: name their bands, such as --bands g r i z"
        )
    raise BadInput(
        f"--dataset {name}: no column holds pictures; name one of pictures, or of their files, with --image-column: it has "
        f"{', '.join(f'{column} ({described(feature)})' for column, feature in list(features.items())[:20]) or 'none'}"
    )


def columns_of(features: Mapping[str, Any]) -> dict[str, Kept]:
    """All columns by their names; parts of a structure, such as of the JSON in a WebDataset, are columns of their own."""
    columns = {column: Kept(feature, (column,)) for column, feature in features.items() if not _is_nested(feature)}
    for column, feature in features.items():
        for part, own in feature.items() if _is_nested(feature) else ():
            columns[f"{column}.{part}" if part in {*features, *columns} else part] = Kept(own, (column, part))
    return columns


def id_columns(columns: Mapping[str, Kept], asked: str | None, image: str, name: str) -> list[str]:
    """Columns that may hold the names of the galaxies, the most telling first; the one that is asked for alone.

    Raises:
        BadInput: there is no such column, or it holds neither texts nor whole numbers.
    """
    check_named("--id-column", asked, columns, name)
    if asked is not None:
        feature = columns[asked].feature
        if not is_text(feature) and not is_whole(feature):
            raise BadInput(
                f"--id-column {asked}: holds {described(feature)} in {name}; names are texts or whole numbers"
            )
        return [asked]
    possible = [
        c for c, column in columns.items() if c != image and (is_text(column.feature) or is_whole(column.feature))
    ]
    return columns_named_like(possible, ID_NAMES)


def kept_columns(
    columns: Mapping[str, Kept], used: Collection[str], fluxes: bool = False
) -> tuple[dict[str, Kept], list[str]]:
    """The further columns, and descriptions of those that are left out: pictures, lists, and structures of structures.

    Args:
        columns: as of `columns_of`.
        used: columns that are the picture or the name.
        fluxes: the dataset has a column of fluxes, whose name is taken.
    """
    reserved = (*RESERVED, FLUX) if fluxes else RESERVED
    kept: dict[str, Kept] = {}
    left_out = []
    for column, each in columns.items():
        if column in used or column in INTERNAL:
            continue
        name = ".".join(each.path) if column in reserved else column
        if name in reserved or not is_plain(each.feature):
            left_out.append(f"{name} ({described(each.feature)})")
        else:
            kept[name] = each
    return kept, left_out


def _is_nested(feature: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(feature, dict) and not holds_pictures(feature)


def is_plain(feature: object) -> bool:
    """Whether a column of this type holds one number, text, class or date for each galaxy."""
    if isinstance(feature, datasets.ClassLabel):
        return True
    return isinstance(feature, datasets.Value) and not is_binary(feature) and feature.dtype != "null"


def described(feature: object) -> str:
    """The type of a column, for messages."""
    if isinstance(feature, datasets.ClassLabel):
        return f"{len(feature.names)} classes"
    return str(getattr(feature, "dtype", None) or type(feature).__name__)
