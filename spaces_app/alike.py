"""Galaxies most like a given one, among drawn galaxies that may be shown to anybody.

    python spaces_app/alike.py

draws them anew, into drawn.parquet.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from usearch.index import Index, MetricKind

from hf_galaxy.models.morphology import in_words
from hf_galaxy.models.onnx_model import FastModel

FILE = Path(__file__).parent / "drawn.parquet"
GALAXIES, SEED, SIZE = 600, 8, 96  # of the mock survey
BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """A drawn galaxy.

    Attributes:
        picture: its JPEG.
        words: what it is, as a volunteer who makes no mistake would say.
        likeness: cosine of the angle between its features and the picture's, at most 1.
    """

    id_str: str
    picture: bytes
    words: str
    likeness: float


class Alike:
    """The drawn galaxies as one model sees them.

    Args:
        model: whose features are compared; it looks at all of them now.
    """

    def __init__(self, model: FastModel):
        self.galaxies = pq.read_table(FILE).to_pylist()
        pictures = [np.asarray(Image.open(io.BytesIO(each["image"])).convert("RGB")) for each in self.galaxies]
        views = [model.view(picture) for picture in pictures]
        features = [model.answer(np.stack(views[i : i + BATCH])).features for i in range(0, len(views), BATCH)]
        features = np.concatenate(features)
        # Cosines about the mean galaxy: about the origin, all galaxies lie in nearly one direction.
        self.mean = features.mean(axis=0)
        self.index = Index(ndim=features.shape[1], metric=MetricKind.Cos, dtype="f32")
        self.index.add(np.arange(len(features)), features - self.mean)

    def most(self, features: np.ndarray, count: int) -> list[Drawn]:
        """So many galaxies that are most like one of features (D,), the most alike first."""
        found = self.index.search(features - self.mean, count, exact=True)
        return [
            Drawn(galaxy["id_str"], galaxy["image"], words_of(galaxy["true_path"]), float(1 - distance))
            for galaxy, distance in ((self.galaxies[int(key)], distance) for key, distance in zip(found.keys, found.distances, strict=True))
        ]  # fmt: skip


def words_of(true_path: str) -> str:
    """Plain English of the `true_path` of a drawn galaxy."""
    return in_words([tuple(column.rsplit("_", 1)) for column in true_path.split(" > ")])


def draw_all() -> None:
    """Write drawn.parquet."""
    from hf_galaxy.publishing.simulate import MockSurvey

    survey = MockSurvey(GALAXIES, SEED, SIZE)
    rows = [survey.row(i).columns for i in range(GALAXIES)]
    table = pa.Table.from_pylist(
        [{"id_str": row["id_str"], "true_path": row["true_path"], "image": row["image"]["bytes"]} for row in rows]
    )
    pq.write_table(table, FILE, compression="none")  # JPEGs are compressed


if __name__ == "__main__":
    draw_all()
