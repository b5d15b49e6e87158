"""The models of the Space, and all that they say of a picture. Legend: A answers, D features, S side of the view."""

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import text
from alike import Alike, Drawn
from hf_galaxy.errors import BadInput
from hf_galaxy.models.familiarity import Familiarity, looks_of
from hf_galaxy.models.morphology import likely_path, morphology
from hf_galaxy.models.onnx_model import Answers, FastModel
from hf_galaxy.models.saliency import saliency
from hf_galaxy.reports.run_record import RunRecord
from picture import Picture

MODELS = Path(__file__).parent / "models"
THREADS = 2  # of ONNX Runtime, for one picture
MASKS = 1024  # of which a map is made: with fewer it is noisy, with these it takes a third of a second
MOST_ZOOM = 4.0


@dataclass(frozen=True)
class Looked:
    """A model has looked at a picture.

    Attributes:
        view: (3, S, S) what it saw of it, in [0, 1].
        answers: of this one picture, in batches of one.
        unlikeness: to the galaxies that it learnt from; above 1 it is further from them than 99 of 100 galaxies.
    """

    view: np.ndarray
    answers: Answers
    unlikeness: float


class GalaxyModel:
    """A run folder that answers visitors.

    Attributes:
        name: of its folder.
        title: for people.
    """

    def __init__(self, folder: Path):
        self.name = folder.name
        self.record = RunRecord.load(folder)
        self.fast = FastModel(folder, threads=THREADS)
        self.familiarity = Familiarity.load(folder)
        self.tree = self.fast.tree
        parameters = sum(self.record.model["parameters"][part] for part in ("backbone", "head"))
        self.title = text.say(
            "models.title", backbone=self.record.model["backbone"], millions=f"{parameters / 1e6:.1f}"
        )
        self._searching = threading.Lock()

    @property
    def campaigns(self) -> list[str]:
        """Whose questions it answers."""
        return list(self.tree.campaigns)

    def look(self, picture: Picture, zoom: float = 1.0) -> Looked:
        """Look at the middle of a picture."""
        view = self.fast.view(zoomed(picture.pixels, zoom))
        answers = self.fast.answer(view[None])
        unlikeness = self.familiarity.unlikeness(answers.features, looks_of(view[None]))
        return Looked(view, answers, float(unlikeness[0]))

    def says(self, looked: Looked, campaign: str, volunteers: int, asked: float = 0.5) -> dict:
        """`morphology.morphology` of one campaign, with the number of votes that volunteers would give."""
        [said] = morphology(
            looked.answers.fractions[0], self._concentrations(looked), self.tree, asked=asked, campaign=campaign, volunteers=volunteers
        )  # fmt: skip
        return said

    def path(self, looked: Looked, campaign: str) -> list[int]:
        """The likely answers of a campaign, as columns of the tree."""
        questions = self.tree.campaigns[campaign]
        path = likely_path(looked.answers.fractions[0], self.tree)
        return [answer for answer in path if self.tree.question_of_answer[answer] in questions]

    def looked_at(self, looked: Looked, answer: int) -> np.ndarray:
        """(S, S) how much each place of the view speaks for an answer; `saliency.saliency` says how."""
        return saliency(self.fast.answer, looked.view, answer, MASKS)

    def alike(self, looked: Looked, count: int) -> list[Drawn]:
        """Drawn galaxies that it finds most like this one."""
        with self._searching:  # the first visitor waits for the model to look at all of them, the others with her
            alike = self._alike
        return alike.most(looked.answers.features[0], count)

    @cached_property
    def _alike(self):
        return Alike(self.fast)

    def _concentrations(self, looked):
        every = looked.answers.concentrations
        return None if every is None else every[0]


def load_models(folder: Path = MODELS) -> dict[str, GalaxyModel]:
    """All models by name, the first of them the one that is shown first."""
    return {each.name: GalaxyModel(each) for each in sorted(folder.iterdir()) if (each / "config.json").is_file()}


def zoomed(pixels: np.ndarray, zoom: float) -> np.ndarray:
    """The middle of a picture (H, W, 3), whose sides are so many times shorter.

    Raises:
        BadInput: it is no number from 1 to MOST_ZOOM.
    """
    if not (isinstance(zoom, int | float) and 1 <= zoom <= MOST_ZOOM):
        raise BadInput(text.say("classify.bad_zoom", most=f"{MOST_ZOOM:g}"))
    height, width = (max(1, round(side / zoom)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
