"""The first tab: one picture, one model or two side by side, and the endpoints that say the same to programs."""

from functools import partial
from pathlib import Path

import gradio as gr

from answers_page import failed_html
from classifier import ALIKE, VOLUNTEERS, Classifier, kindly, read
from cutouts import FIELD, LEAST_FIELD, MOST_FIELD, coordinates, cutout, declination, right_ascension
from files import FileBox, FileButton, PictureBox
from galaxy_models import MOST_ZOOM
from hf_galaxy.errors import BadInput
from text import say

EXAMPLES = Path(__file__).parent / "examples"
MOST_SHOWN = 100  # volunteers; programs may ask for more
# On a phone the answer lies below the screen.
SHOW_RESULT = """() => {
    const result = document.getElementById("result");
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (result.getBoundingClientRect().top > 0.8 * innerHeight) result.scrollIntoView({behavior: calm ? "auto" : "smooth"});
}"""
AT_ONCE = {"concurrency_id": "model", "concurrency_limit": 2}  # pictures in work, as many as there are cores


def build(classifier: Classifier) -> None:
    """Lay out the tab, inside a gr.Tab."""
    titles = classifier.titles
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            picture = PictureBox(
                label=say("classify.picture"), placeholder=say("classify.picture_hint"), sources=["upload", "clipboard", "webcam"],
                format="png", height=320, buttons=["fullscreen"], alt_text=say("classify.picture"), elem_id="picture",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button(say("classify.go"), variant="primary", elem_id="go")
                fits = FileButton(say("classify.fits"), file_types=[".fits", ".fit", ".fts", ".gz"], elem_id="fits")
            gr.Markdown(f"**{say('classify.examples')}**")
            with gr.Row(elem_classes="examples"):
                examples = {
                    file: gr.Button(say(f"examples.{file.stem}"), icon=file, elem_classes="example", min_width=80)
                    for file in sorted(EXAMPLES.iterdir())
                }
            with gr.Accordion(say("classify.options"), open=False):
                model = gr.Dropdown(titles, value=titles[0][1], label=say("classify.model"))
                compare = gr.Dropdown([(say("models.none"), ""), *titles], value="", label=say("classify.compare"))
                campaign = gr.Dropdown(
                    classifier.campaign_titles, value=classifier.campaigns[0], label=say("classify.campaign"),
                    info=say("classify.campaign_hint"),
                )  # fmt: skip
                zoom = gr.Slider(1, MOST_ZOOM, 1, step=0.1, label=say("classify.zoom"), info=say("classify.zoom_hint"))
                volunteers = gr.Slider(1, MOST_SHOWN, VOLUNTEERS, step=1, label=say("classify.volunteers"))
                every = gr.Checkbox(label=say("classify.every"))
            with gr.Accordion(say("classify.coordinates"), open=False):
                gr.Markdown(say("classify.coordinates_hint"))
                place = gr.Textbox(label=say("classify.place"), placeholder="184.957 5.342 / 12:19:49.7 +05:20:31")
                field = gr.Slider(LEAST_FIELD, MOST_FIELD, FIELD, step=5, label=say("classify.field"))
                fetch = gr.Button(say("classify.fetch"))
                fetched = gr.HTML()
        with gr.Column(scale=6, min_width=300):
            result = gr.HTML(
                f"<p>{say('classify.waiting')}</p>", label=say("classify.result"), elem_id="result", apply_default_css=False,
                html_template='<div role="region" aria-live="polite" class="models">${value}</div>',
            )  # fmt: skip
            with gr.Accordion(say("classify.why"), open=True):
                answer = gr.Dropdown([], label=say("classify.why_question"), elem_id="answer")
                why = gr.HTML(elem_id="why")
                gr.Markdown(say("classify.why_hint"))
            with gr.Accordion(say("classify.alike"), open=True):
                alike = gr.HTML(elem_id="alike")
                gr.Markdown(say("classify.alike_hint"))

    private = {"api_visibility": "private", "show_progress": "minimal"}
    looks, explains = (
        [picture, model, compare, campaign, volunteers, zoom, every],
        [picture, model, campaign, zoom, answer],
    )
    changes = [
        picture.change, go.click, model.input, compare.input, campaign.input, volunteers.release, zoom.release, every.input
    ]  # fmt: skip
    shown = gr.on(changes, classifier.show, looks, result, trigger_mode="always_last", **AT_ONCE, **private)
    shown.then(classifier.explain, explains, [why, answer, alike], **AT_ONCE, **private)
    gr.on([picture.upload, go.click], None, js=SHOW_RESULT, **private)
    answer.input(classifier.explain, explains, [why, answer, alike], trigger_mode="always_last", **AT_ONCE, **private)

    def opened(file):
        try:
            return read(file).pixels, ""
        except BadInput as error:
            return None, failed_html(str(error))

    def sky(place, field):
        try:
            return cutout(*coordinates(place), field).pixels, ""
        except BadInput as error:
            return gr.skip(), failed_html(str(error))

    for file, button in examples.items():
        button.click(partial(opened, file), None, [picture, fetched], **AT_ONCE, **private).then(
            None, js=SHOW_RESULT, **private
        )
    fits.upload(opened, fits, [picture, fetched], **AT_ONCE, **private)
    fetch.click(sky, [place, field], [picture, fetched], concurrency_limit=4, **private)
    _endpoints(classifier)


def _endpoints(classifier):
    """For programs, gradio_client and MCP: their docstrings are what is said of them."""
    given = FileBox(visible=False, label="picture")
    model, campaign, answer = (gr.Textbox(None, visible=False, label=each) for each in ("model", "campaign", "answer"))
    volunteers, zoom, count = (gr.Number(each, visible=False) for each in (VOLUNTEERS, 1, ALIKE))
    said, ask = gr.JSON(visible=False), gr.Button(visible=False)
    for function, inputs in [
        (classifier.classify, [given, model, campaign, volunteers, zoom]),
        (classifier.looked_at, [given, answer, model, campaign, zoom]),
        (classifier.alike, [given, model, count, zoom]),
    ]:
        ask.click(kindly(function), inputs, said, api_name=function.__name__, **AT_ONCE)
    ask.click(kindly(classifier.about, "models"), None, said, api_name="models", queue=False)

    def fetched(ra: str, dec: str, field_arcsec: float = FIELD) -> str:
        """A picture of the sky from the viewer of the Legacy Surveys, which is asked for it now.

        Args:
            ra: right ascension, degrees or hh:mm:ss.
            dec: declination, degrees or dd:mm:ss.
            field_arcsec: side of the picture, arcseconds.

        Returns:
            The picture, a PNG file.
        """
        return cutout(right_ascension(ra or ""), declination(dec or ""), field_arcsec).pixels

    places = [gr.Textbox(visible=False, label=each) for each in ("ra", "dec")]
    seen = gr.Image(visible=False, format="png", label="cutout")
    ask.click(
        kindly(fetched, "cutout"),
        [*places, gr.Number(FIELD, visible=False)],
        seen,
        api_name="cutout",
        concurrency_limit=4,
    )
