"""The Space: predicted votes for a picture of a galaxy, with intervals and an explanation.

    python spaces_app/app.py

serves it on http://127.0.0.1:7860, or on GRADIO_SERVER_NAME and GRADIO_SERVER_PORT. Its only request to another server is to the
viewer of the Legacy Surveys, when a visitor asks for a picture of the sky.
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
from law_records import RESULTS
from temporary import removed_at_exit, start_sweeping
from text import sentence
from uploads import MAX_ZIP

HERE = Path(__file__).parent
# The contrast of white on this blue and these greys is at least 4.5 to 1, unlike that of gradio's own orange and grey.
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"]).set(
    color_accent="*primary_700", body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
    button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800", button_primary_background_fill_hover_dark="*primary_600",
)  # fmt: skip
QUEUE_SIZE = 100  # requests; further ones are refused
MAX_SESSIONS = 100  # whose state gradio keeps; its default is 10,000 of 0.15 MB each


def page() -> gr.Blocks:
    """The page with all tabs."""
    classifier = Classifier(load_models())
    with gr.Blocks(title=sentence("page.title"), analytics_enabled=False) as demo:
        gr.Markdown(f"# {sentence('page.heading')}\n\n{sentence('page.lead')}")
        with gr.Tab(sentence("page.classify")):
            classify_tab.build(classifier)
        with gr.Tab(sentence("page.several")):
            several_tab.build(classifier)
        with gr.Tab(sentence("page.laws")):
            laws_tab.build(RESULTS)
        with gr.Tab(sentence("page.about")):
            about_tab.build(classifier.models)
    return demo.queue(max_size=QUEUE_SIZE)


def serve() -> None:
    """Serve the page until the process is stopped."""
    with removed_at_exit(FOLDER):
        demo = page()
        fetch_nothing()
        demo.launch(
            theme=THEME, css_paths=HERE / "style.css", max_file_size=MAX_ZIP, show_error=False, enable_monitoring=False,
            run_history=False, ssr_mode=False, pwa=False, share=False, state_session_capacity=MAX_SESSIONS,
            footer_links=["api", "settings"], mcp_server=importlib.util.find_spec("mcp") is not None, prevent_thread_lock=True,
            app_kwargs={"middleware": [GUARD]},
        )  # fmt: skip
        start_sweeping(FOLDER)
        demo.block_thread()


if __name__ == "__main__":
    serve()
