"""The models of the Space, and their predictions for a picture. Legend: A answers, D features, S side of the view."""

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import text
from alike import Drawn, DrawnIndex
from hf_galaxy.errors import BadInput
from hf_galaxy.models.familiarity import Familiarity, looks_of
from hf_galaxy.models.morphology import likely_path, morphology
from hf_galaxy.models.onnx_model import Answers, FastModel
from hf_galaxy.models.saliency import saliency
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.vote_report import in_volunteers
from picture import Picture

MODELS = Path(__file__).parent / "models"
THREADS = 2  # of ONNX Runtime, for one picture
MASKS = 1024  # for a saliency map: with fewer it is noisy, with these it takes a third of a second
MAX_ZOOM = 4.0


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for one picture.

    Attributes:
        view: (3, S, S) input of the model, in [0, 1].
        answers: output of the model, a batch of one.
        unlikeness: distance from the training galaxies; above 1 it is larger than for 99 of 100 galaxies.
    """

    view: np.ndarray
    answers: Answers
    unlikeness: float

    @property
    def votes(self) -> tuple[Any, ...]:
        """The fractions, concentrations and weights of the answers, as of `Answers`, without the dimension of the batch."""
        answers = self.answers
        batches = (answers.fractions, answers.concentrations, answers.weights)
        return tuple(None if each is None else each[0] for each in batches)


class GalaxyModel:
    """A model of the Space, from a run folder.

    Attributes:
        name: of its folder.
        title: name for people.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.record = RunRecord.load(folder)
        self.fast = FastModel(folder, threads=THREADS)
        self.familiarity = Familiarity.load(folder)
        self.tree = self.fast.tree
        parameters = sum(self.record.model["parameters"][part] for part in ("backbone", "head"))
        self.title = text.sentence(
            "models.title", backbone=self.record.model["backbone"], millions=f"{parameters / 1e6:.1f}"
        )
        self._indexing = threading.Lock()

    @property
    def campaigns(self) -> list[str]:
        """The campaigns whose questions it answers."""
        return list(self.tree.campaigns)

    def predict(self, picture: Picture, zoom: float = 1.0) -> Prediction:
        """Predict the answers for the centre of a picture, which is rendered like the training set.

        Raises:
            BadInput: as `zoomed`, or as `Picture.rendered`.
        """
        view = self.fast.view(zoomed(picture.rendered(self.fast.rendering), zoom))
        answers = self.fast.answer(view[None])
        unlikeness = self.familiarity.ood_score(answers.features, looks_of(view[None]))
        return Prediction(view, answers, float(unlikeness[0]))

    def describe(self, prediction: Prediction, campaign: str, volunteers: int, asked: float = 0.5) -> dict[str, Any]:
        """`morphology.morphology` of one campaign, with the expected votes of this number of volunteers."""
        fractions, concentrations, weights = prediction.votes
        [described] = morphology(
            fractions, concentrations, self.tree, asked=asked, campaign=campaign, volunteers=volunteers, weights=weights
        )
        return described

    @property
    def worth(self) -> dict[str, str]:
        """Of each question with enough test galaxies, what a prediction is worth in volunteers; its card has intervals."""
        measured = self.record.results["test"].get("volunteers", {})
        return {name: in_volunteers(each, short=True) for name, each in measured.items() if each["value"] is not None}

    def path(self, prediction: Prediction, campaign: str) -> list[int]:
        """The likely answers of a campaign, as columns of the tree."""
        questions = self.tree.campaigns[campaign]
        path = likely_path(prediction.answers.fractions[0], self.tree)
        return [answer for answer in path if self.tree.question_of_answer[answer] in questions]

    def saliency(self, prediction: Prediction, answer: int) -> np.ndarray:
        """(S, S) how much each place of the view supports an answer, as of `saliency.saliency`."""
        return saliency(self.fast.answer, prediction.view, answer, MASKS)

    def alike(self, prediction: Prediction, count: int) -> list[Drawn]:
        """The drawn galaxies whose features are most similar, most similar first."""
        with self._indexing:  # the first visitors wait until the model has processed all drawn galaxies
            index = self._drawn
        return index.search(prediction.answers.features[0], count)

    @cached_property
    def _drawn(self) -> DrawnIndex:
        return DrawnIndex(self.fast)


def load_models(folder: Path = MODELS) -> dict[str, GalaxyModel]:
    """All models by name; the first one is the default."""
    return {each.name: GalaxyModel(each) for each in sorted(folder.iterdir()) if (each / "config.json").is_file()}


def zoomed(pixels: np.ndarray, zoom: float) -> np.ndarray:
    """The centre of a picture (H, W, 3), with sides shorter by this factor.

    Raises:
        BadInput: the factor is not a number from 1 to MAX_ZOOM.
    """
    if not (isinstance(zoom, int | float) and 1 <= zoom <= MAX_ZOOM):
        raise BadInput(text.sentence("classify.bad_zoom", most=f"{MAX_ZOOM:g}"))
    height, width = (max(1, round(side / zoom)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
