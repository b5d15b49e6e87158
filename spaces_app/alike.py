"""Search for similar galaxies among drawn ones, which may be shown to anybody.

    python spaces_app/alike.py

draws them again, into drawn.parquet.
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
        picture: JPEG.
        words: its morphology in words.
        likeness: cosine similarity of its features and those of the picture, at most 1.
    """

    id_str: str
    picture: bytes
    words: str
    likeness: float


class DrawnIndex:
    """The drawn galaxies by the features of one model.

    Args:
        model: computes the features; it processes all drawn galaxies now.
    """

    def __init__(self, model: FastModel) -> None:
        self.galaxies = pq.read_table(FILE).to_pylist()
        pictures = [np.asarray(Image.open(io.BytesIO(each["image"])).convert("RGB")) for each in self.galaxies]
        views = [model.view(picture) for picture in pictures]
        features = [model.answer(np.stack(views[i : i + BATCH])).features for i in range(0, len(views), BATCH)]
        of_all = np.concatenate(features)
        # Cosines about the mean galaxy: about the origin, all galaxies are in nearly the same direction.
        self.mean = of_all.mean(axis=0)
        self.index = Index(ndim=of_all.shape[1], metric=MetricKind.Cos, dtype="f32")
        self.index.add(np.arange(len(of_all)), of_all - self.mean)

    def search(self, features: np.ndarray, count: int) -> list[Drawn]:
        """The `count` galaxies most similar to features (D,), most similar first."""
        found = self.index.search(features - self.mean, count, exact=True)
        return [
            Drawn(galaxy["id_str"], galaxy["image"], words_of(galaxy["true_path"]), float(1 - distance))
            for galaxy, distance in ((self.galaxies[int(key)], distance) for key, distance in zip(found.keys, found.distances, strict=True))
        ]  # fmt: skip


def words_of(true_path: str) -> str:
    """The `true_path` of a drawn galaxy in words."""
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
