"""The Space: anyone classifies a galaxy, and sees why and how sure.

    python spaces_app/app.py

serves it on http://127.0.0.1:7860; GRADIO_SERVER_PORT and GRADIO_SERVER_NAME choose others. It makes no request to anybody
but the viewer of the Legacy Surveys, when a visitor asks for a picture of the sky.
"""

from before_gradio import FOLDER

# isort: split
import importlib.util
from pathlib import Path

import gradio as gr

import about_tab
import classify_tab
import laws_tab
import several_tab
from classifier import Classifier
from galaxy_models import load_models
from guard import GUARD, fetch_nothing
from temporary import gone_at_the_end, sweep
from text import say
from uploads import MOST_ZIP

HERE = Path(__file__).parent
# Everybody can read white on this blue and these greys (4.5 to 1 at least), as it is not with gradio's own orange and grey.
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"]).set(
    color_accent="*primary_700", body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
    button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800", button_primary_background_fill_hover_dark="*primary_600",
)  # fmt: skip
WAITING = 100  # visitors in the queue; later ones are told to come back
REMEMBERED = 100  # visitors' pages of which gradio keeps the state; by default it keeps 10,000, 0.15 MB each


def page() -> gr.Blocks:
    """All tabs."""
    classifier = Classifier(load_models())
    with gr.Blocks(title=say("page.title"), analytics_enabled=False) as demo:
        gr.Markdown(f"# {say('page.heading')}\n\n{say('page.lead')}")
        with gr.Tab(say("page.classify")):
            classify_tab.build(classifier)
        with gr.Tab(say("page.several")):
            several_tab.build(classifier)
        with gr.Tab(say("page.laws")):
            laws_tab.build(HERE / "results" if (HERE / "results").is_dir() else HERE.parent / "results")
        with gr.Tab(say("page.about")):
            about_tab.build(classifier.models)
    return demo.queue(max_size=WAITING)


def serve() -> None:
    """Serve the page until it is stopped."""
    with gone_at_the_end(FOLDER):
        demo = page()
        fetch_nothing()
        demo.launch(
            theme=THEME, css_paths=HERE / "style.css", max_file_size=MOST_ZIP, show_error=False, enable_monitoring=False,
            run_history=False, ssr_mode=False, pwa=False, share=False, state_session_capacity=REMEMBERED,
            footer_links=["api", "settings"], mcp_server=importlib.util.find_spec("mcp") is not None, prevent_thread_lock=True,
            app_kwargs={"middleware": [GUARD]},
        )  # fmt: skip
        sweep(FOLDER)
        demo.block_thread()


if __name__ == "__main__":
    serve()
