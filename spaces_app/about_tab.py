"""The tab "About": purpose, limits, and the cards of the models."""

import base64
import re
from pathlib import Path

import gradio as gr

from classifier import VOLUNTEERS
from galaxy_models import MODELS, GalaxyModel
from text import sentence


def card_of(folder: Path) -> str:
    """The card of a run folder without its header, with its figures embedded: no other file is served."""
    card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]

    def embedded(found: re.Match[str]) -> str:
        alt, file = found.groups()
        return f"![{alt}](data:image/png;base64,{base64.b64encode((folder / file).read_bytes()).decode()})"

    return re.sub(r"!\[([^\]]*)\]\((figures/[\w.-]+\.png)\)", embedded, card)


def build(models: dict[str, GalaxyModel]) -> None:
    """Build the tab, inside a gr.Tab."""
    sizes = " or ".join(sorted({str(model.fast.framing.size) for model in models.values()}))
    gr.Markdown(sentence("about.text", volunteers=VOLUNTEERS, size=sizes), elem_id="about")
    for name, model in models.items():
        with gr.Accordion(sentence("about.card", title=model.title), open=False):
            gr.Markdown(card_of(MODELS / name), elem_classes="card")
