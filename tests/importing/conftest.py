"""Pictures of galaxies in the layouts in which people have them."""

import pytest

from tests.galaxies import jpeg_bytes


@pytest.fixture
def class_folder(tmp_path):
    """24 pictures in two class folders, among things that programs leave there."""
    for i in range(24):
        file = tmp_path / "galaxies" / ("spiral" if i % 3 else "elliptical") / f"g{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg_bytes(i))
    return tmp_path / "galaxies"
