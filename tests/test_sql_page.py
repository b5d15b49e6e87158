"""The angle on the sky in docs/howto/sql.md is that of astropy; that its questions run is a matter of test_documentation."""

import re

import duckdb
import numpy as np
from astropy.coordinates import SkyCoord

from tests.conftest import ROOT


def test_the_macro_of_the_page_gives_the_angle_of_astropy():
    [macro] = re.findall(r"CREATE MACRO .*?(?=\n\"\"\"\))", (ROOT / "docs/howto/sql.md").read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, (2, 200)), np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 200))))
    ra[1, :50], dec[1, :50] = ra[0, :50] + 1e-4, dec[0, :50] - 1e-4  # a fraction of an arcsec
    ra[:, 50:60] = [[359.9999], [0.0001]]
    ra[:, 60], dec[:, 60] = (10, 190), (30, -30)  # opposite one another
    expected = SkyCoord(ra[0], dec[0], unit="deg").separation(SkyCoord(ra[1], dec[1], unit="deg")).deg
    db = duckdb.connect()
    db.execute(macro)
    pairs = np.stack([ra[0], dec[0], ra[1], dec[1]], axis=1).tolist()
    found = [db.execute("SELECT separation_deg(?, ?, ?, ?)", pair).fetchone()[0] for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
