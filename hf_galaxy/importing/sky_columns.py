"""Right ascension and declination in a catalogue: checked, and right ascension from -180 to 180 degrees brought to 0 to 360."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_galaxy.importing.catalogue_table import CatalogueTable
from hf_galaxy.importing.column_map import ColumnMap
from hf_galaxy.progress import log_once

logger = logging.getLogger(__name__)
UNKNOWN = "leave the cell empty where it is unknown"


class SkyColumns:
    """The columns `ra` and `dec` of a catalogue, which comes some rows at a time.

    Args:
        columns: of the catalogue.
    """

    def __init__(self, columns: ColumnMap) -> None:
        self.names = columns.values | {name: entry.column for name, entry in columns.metadata.items()}
        self.negative = self.beyond = False  # right ascensions below 0 and above 180 in the rows so far

    def checked(self, piece: CatalogueTable, table: pa.Table) -> pa.Table:
        """The rows with right ascensions from 0 to 360; as they are if the catalogue has no such columns.

        Args:
            piece: as they stand in the catalogue.
            table: as columns of the dataset.

        Raises:
            BadInput: a value is no angle; or some right ascensions are negative and others above 180, so that the negative ones
                probably mark what is unknown.
        """
        if not {"ra", "dec"} <= set(table.column_names):
            return table
        ra, dec = (table[name].cast(pa.float64()).to_numpy() for name in ("ra", "dec"))
        column = self.names["ra"]
        self.beyond |= bool((ra > 180).any())
        wrong = (ra < (0 if self.beyond else -180)) | (ra > 360)
        piece.refuse(wrong, column, "is not a value of ra in degrees, 0 to 360", remedy=UNKNOWN)
        if self.negative:  # in an earlier piece
            piece.refuse(ra > 180, column, "is above 180, while earlier rows are below 0", remedy=UNKNOWN)
        piece.refuse(np.abs(dec) > 90, self.names["dec"], "is not a value of dec in degrees, -90 to 90", remedy=UNKNOWN)
        if not (ra < 0).any():
            return table
        self.negative = True
        log_once(
            logger, f"{piece.path}, column {column}: right ascensions from -180 to 180 degrees are read as 0 to 360"
        )
        column_of_360 = pc.if_else(pc.less(table["ra"], 0), pc.add(table["ra"], 360), table["ra"])
        return table.set_column(table.schema.get_field_index("ra"), "ra", column_of_360.cast(table["ra"].type))
