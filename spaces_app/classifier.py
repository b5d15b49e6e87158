"""What the page's buttons and the endpoints do with one picture."""

from collections.abc import Callable
from functools import wraps

import gradio as gr

from answers_page import alike_html, answers_html, failed_html, question_words, views_html
from galaxy_models import GalaxyModel
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import MOST_VOLUNTEERS
from picture import Picture, read_picture
from text import known, say

VOLUNTEERS = 40  # of a usual galaxy of Galaxy Zoo
ALIKE, MOST_ALIKE = 6, 50  # drawn galaxies


class Classifier:
    """Answers visitors and programs.

    Attributes:
        models: by name, the first one is the visitor's unless another is chosen.
    """

    def __init__(self, models: dict[str, GalaxyModel]):
        self.models = models
        self.campaigns = list(dict.fromkeys(name for model in models.values() for name in model.campaigns))

    @property
    def campaign_titles(self) -> list[tuple[str, str]]:
        """What people read, and the campaign's name."""
        return [(known(f"campaigns.{name}", name), name) for name in self.campaigns]

    @property
    def titles(self) -> list[tuple[str, str]]:
        """What people read of each model, and its name."""
        return [(model.title, name) for name, model in self.models.items()]

    # For programs.

    def classify(
        self, picture: str, model: str | None = None, campaign: str | None = None, volunteers: int = VOLUNTEERS, zoom: float = 1
    ) -> dict:  # fmt: skip
        """What Galaxy Zoo volunteers would say of a galaxy's picture: every question, with expected votes and 90 % intervals.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            model: name of a model, as the endpoint models lists them; the first by default.
            campaign: whose questions are answered, such as gz2 or gz_jwst_ceers; the model's first by default.
            volunteers: how many look at the galaxy, from 1 to 1000.
            zoom: 1 shows the model the middle of the picture as in training, 2 half of that.

        Returns:
            model and campaign; description, the likely path in words; path; questions, each with the probability that it is
            asked and for each answer the expected fraction and votes with intervals; unlikeness, above 1 where the picture is
            unlike those that the model learnt from; familiar, whether it is not.
        """
        chosen, campaign = self.chosen(model, campaign)
        looked = chosen.look(read(picture), zoom)
        said = chosen.says(looked, campaign, _checked("volunteers", volunteers, MOST_VOLUNTEERS), asked=0)
        return {"model": chosen.name, **said, "unlikeness": looked.unlikeness, "familiar": looked.unlikeness <= 1}

    def looked_at(
        self, picture: str, answer: str | None = None, model: str | None = None, campaign: str | None = None, zoom: float = 1
    ) -> dict:  # fmt: skip
        """Which places of the picture speak for an answer: how much fewer volunteers would give it if they were painted over.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            answer: the column of an answer, such as smooth-or-featured-gz2_smooth; by default the likely one to the first question.
            model: name of a model; the first by default.
            campaign: whose likely answer it is, if no answer is named.
            zoom: as of classify.

        Returns:
            model; answer; map, rows of numbers, one for each pixel of what the model saw of the picture.
        """
        chosen, campaign = self.chosen(model, campaign)
        looked = chosen.look(read(picture), zoom)
        column = chosen.path(looked, campaign)[0] if answer is None else self._column(chosen, campaign, answer)
        seen = chosen.looked_at(looked, column)
        return {"model": chosen.name, "answer": chosen.tree.columns[column], "map": seen.round(6).tolist()}

    def alike(self, picture: str, model: str | None = None, count: int = ALIKE, zoom: float = 1) -> list[dict]:
        """Drawn galaxies most like the one in the picture, to a model.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            model: name of a model; the first by default.
            count: how many, from 1 to 50.
            zoom: as of classify.

        Returns:
            For each its id_str, what it is in words, and its likeness, the cosine between features.
        """
        chosen, _ = self.chosen(model, None)
        found = chosen.alike(chosen.look(read(picture), zoom), _checked("count", count, MOST_ALIKE))
        return [{"id_str": each.id_str, "words": each.words, "likeness": each.likeness} for each in found]

    def about(self) -> list[dict]:
        """The models that can be asked: name, title, campaigns and their answers' columns, and what they learnt from."""
        return [
            {
                "name": model.name, "title": model.title, "backbone": model.record.model["backbone"],
                "learnt_from": model.record.dataset["title"], "image_size": model.fast.framing.size,
                "campaigns": {name: [model.tree.columns[a] for q in questions for a in range(model.tree.slices[q].start, model.tree.slices[q].stop)]
                              for name, questions in model.tree.campaigns.items()},
            }
            for model in self.models.values()
        ]  # fmt: skip

    # For the page.

    def show(self, picture, model, compare, campaign, volunteers, zoom, every):
        """HTML of the answers of one model, or of two."""
        if not picture:
            return f"<p>{say('classify.waiting')}</p>"
        try:
            given = read(picture)
            names = [model, compare] if compare and compare != model else [model]
            return "".join(self._shown(self.models[name], given, campaign, volunteers, zoom, every) for name in names)
        except BadInput as error:
            return failed_html(str(error))

    def _shown(self, model, picture, campaign, volunteers, zoom, every):
        if campaign not in model.campaigns:
            return failed_html(say("classify.no_campaign", model=model.title))
        looked = model.look(picture, zoom)
        said = model.says(looked, campaign, volunteers, asked=0 if every else 0.5)
        return answers_html(model.title, said, volunteers, looked.unlikeness)

    def explain(self, picture, model, campaign, zoom, answer):
        """What the model looked at, the answers that can be asked about, and galaxies like this one."""
        chosen = self.models[model]
        try:
            if not picture or campaign not in chosen.campaigns:
                return "", gr.Dropdown(choices=[], value=None), ""
            looked = chosen.look(read(picture), zoom)
            path = chosen.path(looked, campaign)
            columns = chosen.tree.columns
            choices = [(answer_words(chosen, a), columns[a]) for a in path]
            column = columns.index(answer) if answer in [name for _, name in choices] else path[0]
            views = views_html(looked.view, chosen.looked_at(looked, column))
            return views, gr.Dropdown(choices=choices, value=columns[column]), alike_html(chosen.alike(looked, ALIKE))
        except BadInput:  # the answers say so
            return "", gr.Dropdown(choices=[], value=None), ""

    def chosen(self, model: str | None, campaign: str | None) -> tuple[GalaxyModel, str]:
        """The model of a name, and the campaign; both by default the first.

        Raises:
            BadInput: there is none of the name, or it does not answer the campaign's questions.
        """
        name = model or next(iter(self.models))
        if name not in self.models:
            raise BadInput(say("classify.no_model", name=name, known=", ".join(self.models)))
        chosen = self.models[name]
        campaign = campaign or chosen.campaigns[0]
        if campaign not in chosen.campaigns:
            raise BadInput(
                say("classify.wrong_campaign", name=name, campaign=campaign, known=", ".join(chosen.campaigns))
            )
        return chosen, campaign

    @staticmethod
    def _column(model, campaign, answer):
        known_answers = [
            model.tree.columns[a]
            for q in model.tree.campaigns[campaign]
            for a in range(model.tree.slices[q].start, model.tree.slices[q].stop)
        ]
        if answer not in known_answers:
            raise BadInput(say("classify.wrong_answer", answer=answer, known=", ".join(known_answers)))
        return model.tree.columns.index(answer)


def read(picture: str | None) -> Picture:
    """The picture of an uploaded file.

    Raises:
        BadInput: in words for visitors: there is none, or it is none.
    """
    if not picture:
        raise BadInput(say("classify.no_picture"))
    return read_picture(picture)


def answer_words(model: GalaxyModel, answer: int) -> str:
    """An answer with its question, for people."""
    question = model.tree.questions[model.tree.question_of_answer[answer]]
    given = question.answers[answer - model.tree.slices[model.tree.question_of_answer[answer]].start]
    return f"{question_words(question.name)}: {given.replace('-', ' ')}"


def _checked(name, count, most):
    if not (isinstance(count, int | float) and 1 <= count <= most and count == int(count)):
        raise BadInput(say("classify.bad_number", name=name, most=f"{most:,}"))
    return int(count)


def kindly(function: Callable, name: str | None = None) -> Callable:
    """A function as an endpoint, whose BadInput reaches the program in its own words.

    Args:
        name: of the MCP tool, by default the function's.
    """

    @wraps(function)
    def endpoint(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except BadInput as error:
            raise gr.Error(str(error), print_exception=False) from error

    endpoint.__name__ = name or function.__name__
    return endpoint
