"""The tab "Classify": one picture, one or two models; and the endpoints for the same."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from answers_page import failed_html
from classifier import ALIKE, VOLUNTEERS, Classifier, as_endpoint, read
from cutouts import FIELD, MAX_FIELD, MIN_FIELD, coordinates, cutout, declination, right_ascension
from files import FileBox, FileButton, PictureBox
from galaxy_models import MAX_ZOOM
from hf_galaxy.errors import BadInput
from text import sentence

EXAMPLES = Path(__file__).parent / "examples"
MAX_SHOWN = 100  # volunteers; programs may ask for more
# On a phone the answer is below the screen.
SHOW_RESULT = """() => {
    const result = document.getElementById("result");
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (result.getBoundingClientRect().top > 0.8 * innerHeight) result.scrollIntoView({behavior: calm ? "auto" : "smooth"});
}"""
CONCURRENCY = {"concurrency_id": "model", "concurrency_limit": 2}  # one picture on each core


def build(classifier: Classifier) -> None:
    """Build the tab, inside a gr.Tab."""
    titles = classifier.titles
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            picture = PictureBox(
                label=sentence("classify.picture"), placeholder=sentence("classify.picture_hint"), sources=["upload", "clipboard", "webcam"],
                format="png", height=320, buttons=["fullscreen"], alt_text=sentence("classify.picture"), elem_id="picture",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button(sentence("classify.go"), variant="primary", elem_id="go")
                fits = FileButton(
                    sentence("classify.fits"), file_types=[".fits", ".fit", ".fts", ".gz"], elem_id="fits"
                )
            gr.Markdown(f"**{sentence('classify.examples')}**")
            with gr.Row(elem_classes="examples"):
                examples = {
                    file: gr.Button(sentence(f"examples.{file.stem}"), icon=file, elem_classes="example", min_width=80)
                    for file in sorted(EXAMPLES.iterdir())
                }
            with gr.Accordion(sentence("classify.options"), open=False):
                model = gr.Dropdown(titles, value=titles[0][1], label=sentence("classify.model"))
                compare = gr.Dropdown(
                    [(sentence("models.none"), ""), *titles], value="", label=sentence("classify.compare")
                )
                campaign = gr.Dropdown(
                    classifier.campaign_titles, value=classifier.campaigns[0], label=sentence("classify.campaign"),
                    info=sentence("classify.campaign_hint"),
                )  # fmt: skip
                zoom = gr.Slider(
                    1, MAX_ZOOM, 1, step=0.1, label=sentence("classify.zoom"), info=sentence("classify.zoom_hint")
                )
                volunteers = gr.Slider(1, MAX_SHOWN, VOLUNTEERS, step=1, label=sentence("classify.volunteers"))
                every = gr.Checkbox(label=sentence("classify.every"))
            with gr.Accordion(sentence("classify.coordinates"), open=False):
                gr.Markdown(sentence("classify.coordinates_hint"))
                place = gr.Textbox(label=sentence("classify.place"), placeholder="184.957 5.342 / 12:19:49.7 +05:20:31")
                field = gr.Slider(MIN_FIELD, MAX_FIELD, FIELD, step=5, label=sentence("classify.field"))
                fetch = gr.Button(sentence("classify.fetch"))
                fetched = gr.HTML()
        with gr.Column(scale=6, min_width=300):
            result = gr.HTML(
                f"<p>{sentence('classify.waiting')}</p>", label=sentence("classify.result"), elem_id="result", apply_default_css=False,
                html_template='<div role="region" aria-live="polite" class="models">${value}</div>',
            )  # fmt: skip
            with gr.Accordion(sentence("classify.why"), open=True):
                answer = gr.Dropdown([], label=sentence("classify.why_question"), elem_id="answer")
                why = gr.HTML(elem_id="why")
                gr.Markdown(sentence("classify.why_hint"))
            with gr.Accordion(sentence("classify.alike"), open=True):
                alike = gr.HTML(elem_id="alike")
                gr.Markdown(sentence("classify.alike_hint"))

    private = {"api_visibility": "private", "show_progress": "minimal"}
    to_show, explanation = [picture, model, compare, campaign, volunteers, zoom, every, answer], [why, answer, alike]
    changes = [
        picture.change, go.click, model.input, compare.input, campaign.input, volunteers.release, zoom.release, every.input
    ]  # fmt: skip
    gr.on(
        changes, classifier.show, to_show, [result, *explanation], trigger_mode="always_last", **CONCURRENCY, **private
    )
    gr.on([picture.upload, go.click], None, js=SHOW_RESULT, **private)
    to_explain = [picture, model, campaign, zoom, answer]
    answer.input(classifier.explain, to_explain, explanation, trigger_mode="always_last", **CONCURRENCY, **private)

    def opened(file: str | Path) -> tuple[np.ndarray | None, str]:
        try:
            return read(file).pixels, ""
        except BadInput as error:
            return None, failed_html(str(error))

    def sky(place: str, field: float) -> tuple[Any, str]:
        try:
            return cutout(*coordinates(place), field).pixels, ""
        except BadInput as error:
            return gr.skip(), failed_html(str(error))

    for file, button in examples.items():
        button.click(partial(opened, file), None, [picture, fetched], **CONCURRENCY, **private).then(
            None, js=SHOW_RESULT, **private
        )
    fits.upload(opened, fits, [picture, fetched], **CONCURRENCY, **private)
    fetch.click(sky, [place, field], [picture, fetched], concurrency_limit=4, **private)
    _endpoints(classifier)


def _endpoints(classifier: Classifier) -> None:
    """Endpoints for programs, gradio_client and MCP; their docstrings are their documentation."""
    picture = FileBox(visible=False, label="picture")
    model, campaign, answer = (gr.Textbox(None, visible=False, label=each) for each in ("model", "campaign", "answer"))
    volunteers, zoom, count = (gr.Number(each, visible=False) for each in (VOLUNTEERS, 1, ALIKE))
    answer_json, ask = gr.JSON(visible=False), gr.Button(visible=False)
    for function, inputs in [
        (classifier.classify, [picture, model, campaign, volunteers, zoom]),
        (classifier.looked_at, [picture, answer, model, campaign, zoom]),
        (classifier.alike, [picture, model, count, zoom]),
    ]:
        ask.click(as_endpoint(function), inputs, answer_json, api_name=function.__name__, **CONCURRENCY)
    ask.click(as_endpoint(classifier.about, "models"), None, answer_json, api_name="models", queue=False)

    def fetched(ra: str, dec: str, field_arcsec: float = FIELD) -> np.ndarray:
        """A picture of the sky, fetched from the viewer of the Legacy Surveys.

        Args:
            ra: right ascension, degrees or hh:mm:ss.
            dec: declination, degrees or dd:mm:ss.
            field_arcsec: side of the picture, arcseconds.

        Returns:
            The picture, a PNG file.
        """
        return cutout(right_ascension(ra or ""), declination(dec or ""), field_arcsec).pixels

    places = [gr.Textbox(visible=False, label=each) for each in ("ra", "dec")]
    fetched_picture = gr.Image(visible=False, format="png", label="cutout")
    ask.click(
        as_endpoint(fetched, "cutout"),
        [*places, gr.Number(FIELD, visible=False)],
        fetched_picture,
        api_name="cutout",
        concurrency_limit=4,
    )
