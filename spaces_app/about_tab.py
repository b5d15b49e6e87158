"""The third tab: what this is, where it ends, and the models' cards."""

import base64
import re
from pathlib import Path

import gradio as gr

from classifier import VOLUNTEERS
from galaxy_models import MODELS, GalaxyModel
from text import say


def card_of(folder: Path) -> str:
    """The card of a run folder without its header, its figures inside it, as nothing beside the page is served."""
    card = (folder / "README.md").read_text().split("---\n", 2)[2]

    def inside(found):
        words, file = found.groups()
        return f"![{words}](data:image/png;base64,{base64.b64encode((folder / file).read_bytes()).decode()})"

    return re.sub(r"!\[([^\]]*)\]\((figures/[\w.-]+\.png)\)", inside, card)


def build(models: dict[str, GalaxyModel]) -> None:
    """Lay out the tab, inside a gr.Tab."""
    sizes = " or ".join(sorted({str(model.fast.framing.size) for model in models.values()}))
    gr.Markdown(say("about.text", volunteers=VOLUNTEERS, size=sizes))
    for name, model in models.items():
        with gr.Accordion(say("about.card", title=model.title), open=False):
            gr.Markdown(card_of(MODELS / name))
