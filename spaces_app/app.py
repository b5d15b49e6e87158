"""The Space: anyone classifies a galaxy, and sees why and how sure.

    python spaces_app/app.py

serves it on http://127.0.0.1:7860; GRADIO_SERVER_PORT and GRADIO_SERVER_NAME choose others. It makes no request to anybody
but the viewer of the Legacy Surveys, when a visitor asks for a picture of the sky.
"""

import importlib.util
import os

# Before gradio is imported: it would ask its makers for news.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from pathlib import Path

import gradio as gr
import laws_tab
from uploads import LARGEST_FILE

import about_tab
import classify_tab
import several_tab
from galaxy_models import load_models
from text import say

HERE = Path(__file__).parent
KEPT = 600, 1800  # seconds: how often uploaded files are looked through, and how old they may become
# Everybody can read white on this blue and these greys (4.5 to 1 at least), as it is not with gradio's own orange and grey.
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"]).set(
    color_accent="*primary_700", body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300", button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800", button_primary_background_fill_hover_dark="*primary_600",
)  # fmt: skip
WAITING = 100  # visitors in the queue; later ones are told to come back


def page() -> gr.Blocks:
    """All tabs."""
    models = load_models()
    with gr.Blocks(title=say("page.title"), delete_cache=KEPT) as demo:
        gr.Markdown(f"# {say('page.heading')}\n\n{say('page.lead')}")
        with gr.Tab(say("page.classify")):
            classify_tab.build(models)
        with gr.Tab(say("page.several")):
            several_tab.build(models)
        with gr.Tab(say("page.laws")):
            laws_tab.build(HERE / "results" if (HERE / "results").is_dir() else HERE.parent / "results")
        with gr.Tab(say("page.about")):
            about_tab.build(models)
    return demo.queue(max_size=WAITING)


def serve() -> None:
    """Serve the page until it is stopped."""
    page().launch(
        theme=THEME, css_paths=HERE / "style.css", max_file_size=LARGEST_FILE, show_error=False, enable_monitoring=False, run_history=False,
        ssr_mode=False, share=False, footer_links=["api", "settings"], mcp_server=importlib.util.find_spec("mcp") is not None,
    )  # fmt: skip


if __name__ == "__main__":
    serve()
