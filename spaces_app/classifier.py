"""The functions behind the page's buttons and the endpoints for one picture."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr

from answers_page import alike_html, answers_html, failed_html, question_words, views_html
from galaxy_models import GalaxyModel, Prediction
from hf_galaxy.errors import BadInput
from hf_galaxy.models.morphology import MAX_VOLUNTEERS
from picture import Picture, read_picture
from text import sentence, sentence_or

VOLUNTEERS = 40  # of a typical galaxy of Galaxy Zoo
ALIKE, MAX_ALIKE = 6, 50  # drawn galaxies


class Classifier:
    """Predictions for visitors and programs.

    Attributes:
        models: by name; the first one is the default.
    """

    def __init__(self, models: dict[str, GalaxyModel]) -> None:
        self.models = models
        self.campaigns = list(dict.fromkeys(name for model in models.values() for name in model.campaigns))

    @property
    def campaign_titles(self) -> list[tuple[str, str]]:
        """Title and name of each campaign."""
        return [(sentence_or(f"campaigns.{name}", name), name) for name in self.campaigns]

    @property
    def titles(self) -> list[tuple[str, str]]:
        """Title and name of each model."""
        return [(model.title, name) for name, model in self.models.items()]

    # For programs.

    def classify(
        self, picture: str, model: str | None = None, campaign: str | None = None, volunteers: int = VOLUNTEERS, zoom: float = 1
    ) -> dict[str, Any]:  # fmt: skip
        """Predicted votes of Galaxy Zoo volunteers for a picture of a galaxy: every question, with 90 % intervals.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            model: name of a model, as the endpoint models lists them; the first by default.
            campaign: campaign of the questions, such as gz2 or gz_jwst_ceers; the model's first by default.
            volunteers: number of volunteers, from 1 to 1000.
            zoom: with 1 the model gets the centre of the picture as in training, with 2 half of that.

        Returns:
            model and campaign; description, the most likely path in words; path; questions, each with the probability that it is
            asked and for each answer the expected fraction and votes with intervals; unlikeness, above 1 where the picture
            differs from the training pictures; familiar, true where it does not.
        """
        chosen, campaign = self.select(model, campaign)
        prediction = chosen.predict(read(picture), zoom)
        volunteers = _whole_number("volunteers", volunteers, MAX_VOLUNTEERS)
        described = chosen.describe(prediction, campaign, volunteers, asked=0)
        unlikeness = prediction.unlikeness
        return {"model": chosen.name, **described, "unlikeness": unlikeness, "familiar": unlikeness <= 1}

    def looked_at(
        self, picture: str, answer: str | None = None, model: str | None = None, campaign: str | None = None, zoom: float = 1
    ) -> dict[str, Any]:  # fmt: skip
        """Saliency map of an answer: by how much its expected fraction falls if a place of the picture is painted over.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            answer: column of an answer, such as smooth-or-featured-gz2_smooth; by default the most likely one to the first question.
            model: name of a model; the first by default.
            campaign: campaign of the default answer.
            zoom: as of classify.

        Returns:
            model; answer; map, rows of numbers, one for each pixel of the model's input.
        """
        chosen, campaign = self.select(model, campaign)
        prediction = chosen.predict(read(picture), zoom)
        column = chosen.path(prediction, campaign)[0] if answer is None else self._column(chosen, campaign, answer)
        saliency = chosen.saliency(prediction, column)
        return {"model": chosen.name, "answer": chosen.tree.columns[column], "map": saliency.round(6).tolist()}

    def alike(
        self, picture: str, model: str | None = None, count: int = ALIKE, zoom: float = 1
    ) -> list[dict[str, Any]]:
        """Drawn galaxies that are most similar to the one in the picture, by the features of a model.

        Args:
            picture: JPEG, PNG, WebP or FITS file, at most 20 MB.
            model: name of a model; the first by default.
            count: number of galaxies, from 1 to 50.
            zoom: as of classify.

        Returns:
            For each its id_str, its morphology in words, and its likeness, the cosine similarity of the features.
        """
        chosen, _ = self.select(model, None)
        found = chosen.alike(chosen.predict(read(picture), zoom), _whole_number("count", count, MAX_ALIKE))
        return [{"id_str": each.id_str, "words": each.words, "likeness": each.likeness} for each in found]

    def about(self) -> list[dict[str, Any]]:
        """The models: name, title, campaigns with the columns of their answers, and training set."""
        return [
            {
                "name": model.name, "title": model.title, "backbone": model.record.model["backbone"],
                "learnt_from": model.record.dataset["title"], "image_size": model.fast.framing.size,
                "campaigns": {name: _columns(model, name) for name in model.campaigns},
            }
            for model in self.models.values()
        ]  # fmt: skip

    # For the page.

    def show(
        self, picture: str | None, model: str, compare: str, campaign: str, volunteers: int, zoom: float, every: bool,
        answer: str | None,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """The answers of one or two models as HTML, and when they are shown what `explain` returns, from the same prediction."""
        chosen = [self.models[name] for name in dict.fromkeys((model, compare or model))]
        predictions: list[Prediction | None] = [None]
        try:
            if picture:
                opened = read(picture)
                predictions = [each.predict(opened, zoom) if campaign in each.campaigns else None for each in chosen]
                pairs = zip(chosen, predictions, strict=True)
                html = "".join(_answers(each, prediction, campaign, volunteers, every) for each, prediction in pairs)
            else:
                html = f"<p>{sentence('classify.waiting')}</p>"
        except BadInput as error:
            html = failed_html(str(error))
        yield html, gr.skip(), gr.skip(), gr.skip()
        yield gr.skip(), *_explanation(chosen[0], predictions[0], campaign, answer)

    def explain(
        self, picture: str | None, model: str, campaign: str, zoom: float, answer: str | None
    ) -> tuple[str, gr.Dropdown, str]:
        """The saliency map as HTML, the menu of answers to explain, and similar galaxies as HTML."""
        chosen = self.models[model]
        try:
            prediction = chosen.predict(read(picture), zoom) if campaign in chosen.campaigns else None
        except BadInput:  # `show` reports it
            prediction = None
        return _explanation(chosen, prediction, campaign, answer)

    def select(self, model: str | None, campaign: str | None) -> tuple[GalaxyModel, str]:
        """A model and a campaign by their names; by default the first ones.

        Raises:
            BadInput: there is no such model, or it does not answer the questions of the campaign.
        """
        name = model or next(iter(self.models))
        if name not in self.models:
            raise BadInput(sentence("classify.no_model", name=name, available=", ".join(self.models)))
        chosen = self.models[name]
        campaign = campaign or chosen.campaigns[0]
        if campaign not in chosen.campaigns:
            raise BadInput(
                sentence("classify.wrong_campaign", name=name, campaign=campaign, available=", ".join(chosen.campaigns))
            )
        return chosen, campaign

    @staticmethod
    def _column(model: GalaxyModel, campaign: str, answer: str) -> int:
        columns = _columns(model, campaign)
        if answer not in columns:
            raise BadInput(sentence("classify.wrong_answer", answer=answer, available=", ".join(columns)))
        return model.tree.columns.index(answer)


def _answers(model: GalaxyModel, prediction: Prediction | None, campaign: str, volunteers: int, every: bool) -> str:
    """The answers of one model as HTML; None: it does not answer the questions of the campaign."""
    if prediction is None:
        return failed_html(sentence("classify.no_campaign", model=model.title))
    described = model.describe(prediction, campaign, volunteers, asked=0 if every else 0.5)
    return answers_html(model.title, described, volunteers, prediction.unlikeness, model.worth)


def _explanation(
    model: GalaxyModel, prediction: Prediction | None, campaign: str, answer: str | None
) -> tuple[str, gr.Dropdown, str]:
    """As of `Classifier.explain`; empty without a prediction."""
    if prediction is None:
        return "", gr.Dropdown(choices=[], value=None), ""
    path = model.path(prediction, campaign)
    columns = model.tree.columns
    choices = [(answer_words(model, a), columns[a]) for a in path]
    column = columns.index(answer) if answer in [name for _, name in choices] else path[0]
    views = views_html(prediction.view, model.saliency(prediction, column))
    alike = alike_html(model.alike(prediction, ALIKE))
    return views, gr.Dropdown(choices=choices, value=columns[column]), alike


def read(picture: str | None) -> Picture:
    """The picture of an uploaded file.

    Raises:
        BadInput: in words for visitors: there is no file, or it is not a picture.
    """
    if not picture:
        raise BadInput(sentence("classify.no_picture"))
    return read_picture(picture)


def answer_words(model: GalaxyModel, answer: int) -> str:
    """An answer with its question, in words."""
    question = model.tree.questions[model.tree.question_of_answer[answer]]
    name = question.answers[answer - model.tree.slices[model.tree.question_of_answer[answer]].start]
    return f"{question_words(question.name)}: {name.replace('-', ' ')}"


def _columns(model: GalaxyModel, campaign: str) -> list[str]:
    """The columns of all answers of a campaign."""
    tree = model.tree
    return [column for q in tree.campaigns[campaign] for column in tree.columns[tree.slices[q]]]


def _whole_number(name: str, number: float, maximum: int) -> int:
    if not (isinstance(number, int | float) and 1 <= number <= maximum and number == int(number)):
        raise BadInput(sentence("classify.bad_number", name=name, most=f"{maximum:,}"))
    return int(number)


def as_endpoint(function: Callable, name: str | None = None) -> Callable:
    """A function as an endpoint, which reports BadInput to the program.

    Args:
        name: name of the MCP tool; by default that of the function.
    """

    @wraps(function)
    def endpoint(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BadInput as error:
            raise gr.Error(str(error), print_exception=False) from error

    endpoint.__name__ = name or function.__name__
    return endpoint
