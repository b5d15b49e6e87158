"""How a dataset is read: the options that say what its configuration, pictures and names are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hf_galaxy.command_line import DatasetConfig
from hf_galaxy.data.band_names import check_bands
from hf_galaxy.data.pictures import Rendering, Stretch
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.duplicates import SAME_GALAXY_ARCSEC

URLS = ("http://", "https://")
# NAME or ORG/NAME, unless it ends like a file.
MAY_BE_ON_THE_HUB = re.compile(
    r"(?!.*\.(csv|tsv|txt|dat|tab|parquet|pq|arrow|ecsv|vot|votable|xml|fits?|fts|gz|zip|tar)$)[A-Za-z0-9][\w.-]*(/[\w.-]+)?",
    re.IGNORECASE,
)
JOINING = ("join", "on", "on_sky")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options of every command that reads datasets. Published datasets need none of them but `config`."""

    config: DatasetConfig = None
    """Configuration (subset name) of the dataset, if it has several."""
    images: tuple[Path, ...] | None = None
    """Where the pictures of a table are: folders or zip files."""
    image_column: str | None = None
    """Column of the pictures, or of their files; by default it is guessed, and the guess is said."""
    id_column: str | None = None
    """Column of the galaxies' names; by default it is guessed, and the guess is said. The names decide the splits."""
    bands: tuple[str, ...] | None = None
    """Read fluxes in these bands, such as g r i z, as floats instead of 8-bit colour pictures: up to 8 names, in the order of the planes in a file, or as its extensions are called."""
    stretch: Stretch | None = None
    """From values to brightness, for FITS files and grey pictures of 16 bits; lupton is for three bands, and keeps the hue. By default asinh, or that of the model's training set."""
    low: float | None = None
    """Percentile of a file's finite values that becomes black; by default 0.25, or that of the model's training set."""
    high: float | None = None
    """Percentile that becomes white; by default 99.75, or that of the model's training set."""
    softening: float | None = None
    """Of the asinh stretch: share of the interval below which it is linear; by default 0.1, or that of the model's training set."""
    lupton_q: float | None = None
    """Inverse of the softening of lupton; by default 8, or that of the model's training set."""
    rgb: tuple[int, int, int] | None = None
    """The bands of a FITS file, counted from 0, that are red, green and blue; by default 2 1 0, or those of the model's training set."""
    skip_missing: bool = False
    """Leave out the galaxies of a table that have no picture, instead of refusing the table."""
    skip_bad_pictures: bool = False
    """Leave out galaxies whose picture cannot be read, instead of stopping at the first."""
    same_galaxy_arcsec: float = SAME_GALAXY_ARCSEC
    """Galaxies of a table, or of rows with positions, that are closer than this in the sky are in one split; a deep field needs a smaller number."""
    join: Path | None = None
    """A table (CSV, Parquet, FITS, VOTable, ECSV) whose columns, such as redshift and mass, are brought to the galaxies: with --on or --on-sky."""
    on: str | None = None
    """Column that the galaxies and the table of --join share, such as id_str; or OURS=THEIRS, if the table has another name for it."""
    on_sky: str | None = None
    """Radius, such as 1arcsec, within which the nearest row of --join, by ra and dec in degrees, is the same galaxy."""

    of_rendering: ClassVar[tuple[str, ...]] = ("stretch", "low", "high", "softening", "lupton_q", "rgb")

    def __post_init__(self) -> None:
        """Paths may be texts: records and files of tasks have no others."""
        if self.bands is not None:
            object.__setattr__(self, "bands", tuple(self.bands))
        if self.rgb is not None:
            object.__setattr__(self, "rgb", tuple(self.rgb))
        if self.images is not None:
            images = [self.images] if isinstance(self.images, str | Path) else self.images
            object.__setattr__(self, "images", tuple(map(Path, images)))
        if self.join is not None:
            object.__setattr__(self, "join", Path(self.join))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """How the dataset of a run, or of a task, is read.

        Args:
            options: of a record, or of a call; those that are no options of reading are ignored.
        """
        return cls(**{each.name: options[each.name] for each in fields(cls) if options.get(each.name) is not None})

    def check_there(self, datasets: Iterable[str]) -> None:
        """Refuse names of bands that are none, and files and folders that are not there. Commands do so before they import what takes seconds.

        Raises:
            BadInput: names the first, and what it may be meant for. What may be on the Hub is not looked for.
        """
        if self.bands is not None:
            check_bands(self.bands)
        for name in datasets:
            if not Path(name).exists() and not name.startswith(URLS) and not MAY_BE_ON_THE_HUB.fullmatch(name):
                raise BadInput(
                    f"--dataset {name}: no such {'file' if Path(name).suffix else 'folder'}{_meant(Path(name))}"
                )
        for path in self.images or ():
            if not path.exists():
                raise BadInput(f"--images {path}: no such folder or zip file{_meant(path)}")
        if self.join is not None and not self.join.exists():
            raise BadInput(f"--join {self.join}: no such file{_meant(self.join)}")

    def for_model(self, bands: Sequence[str] | None) -> Self:
        """The same, for a model.

        Args:
            bands: whose fluxes it sees; None: it sees colour pictures.

        Raises:
            BadInput: other bands were asked for, or a stretch of fluxes.
        """
        if self.bands is not None and bands is None:
            raise BadInput(f"--bands {' '.join(self.bands)}: the model sees colour pictures, no fluxes; leave it out")
        if missing := [band for band in bands or () if band not in (self.bands or bands or ())]:
            raise BadInput(f"--bands {' '.join(self.bands or ())}: the model needs {', '.join(missing)}, too")
        reading = replace(self, bands=self.bands or (tuple(bands) if bands else None))
        reading.rendering()
        return reading

    @property
    def rendering_options(self) -> dict[str, Any]:
        """The options that say how files become pictures, without those that are not given."""
        return {name: value for name in self.of_rendering if (value := getattr(self, name)) is not None}

    def rendering(self, default: Rendering | None = None) -> Rendering:
        """How files become pictures.

        Args:
            default: whatever is not given; None: the default one.

        Raises:
            BadInput: as `Rendering.with_values`, or fluxes are read, which are not stretched.
        """
        if self.bands and (
            given := next((name for name in Reading.of_rendering if name in self.rendering_options), None)
        ):
            raise BadInput(
                f"--{given.replace('_', '-')}: is for 8-bit pictures; fluxes in bands ({' '.join(self.bands)}) are read as they are: leave it out"
            )
        return (default or Rendering()).with_values(self.rendering_options)

    def without_join(self) -> Self:
        """The same, but for the table that is joined."""
        return replace(self, join=None, on=None, on_sky=None)

    @property
    def campaigns(self) -> tuple[str, ...] | None:
        """Galaxy Zoo campaigns of the votes in a table; None: the names of its columns tell."""
        return None


@dataclass(frozen=True, kw_only=True)
class VotesReading(Reading):
    """Options of the commands that read votes."""

    tree: tuple[str, ...] | None = None
    """Galaxy Zoo campaigns whose questions are the target; by default all whose vote columns the datasets have."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        tree = options.get("tree")
        return super().of({**options, "tree": tree and tuple(tree)})

    @property
    def campaigns(self) -> tuple[str, ...] | None:
        return self.tree


def _meant(path: Path) -> str:
    """A hint at something with a similar name."""
    folder = path.parent
    near = difflib.get_close_matches(path.name, [each.name for each in folder.iterdir()] if folder.is_dir() else [], 1)
    return f"; did you mean {folder / near[0]}?" if near else ""
