"""The page of the Space: the card. The metric is loaded from here with `evaluate.load`; trees are too large for a form."""

from pathlib import Path

import gradio as gr

with gr.Blocks() as page:
    gr.Markdown(Path(__file__).with_name("README.md").read_text(encoding="utf-8").split("---", 2)[2])
page.launch()
