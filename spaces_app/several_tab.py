"""The tab "Several pictures": a table to view and to download."""

import tempfile

import gradio as gr
import pandas as pd

from answers_page import failed_html
from classifier import Classifier, as_endpoint
from files import FileBox, handed_over
from galaxy_models import GalaxyModel
from hf_galaxy.errors import BadInput
from several import Galaxy, table_of, write_tables
from text import sentence
from uploads import Picture, Rejected, read_pictures

# A batch takes minutes; visitors with one picture do not wait for it.
ONE_BATCH = {"concurrency_id": "batch", "concurrency_limit": 1}
SHOWN = ["name", "description", "unlikeness", "note"]  # columns of the displayed table; the files have all
WIDTHS = [150, 420, 120, 520]  # pixels


class Several:
    """The functions behind the tab's button and its endpoint."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def classify_several(
        self, files: list[str], model: str | None = None, campaign: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - by this default gradio provides it
    ) -> tuple[pd.DataFrame, str, str]:  # fmt: skip
        """Predicted votes of volunteers for each of several pictures, as a table.

        Args:
            files: pictures, ZIP files of pictures, or CSV files with the columns ra and dec, in degrees, whose
                pictures are fetched from the viewer of the Legacy Surveys.
            model: name of a model, as the endpoint models lists them; the first by default.
            campaign: campaign of the questions; the model's first by default.

        Returns:
            The table without its fractions; and the whole table as a CSV file and as a Parquet file, with the columns of
            hf-galaxy predict and the ends of 90 % intervals.
        """
        chosen, campaign = self.classifier.select(model, campaign)
        if not files:
            raise BadInput(sentence("several.no_files"))
        galaxies = []
        for picture in read_pictures(files):
            galaxies.append(galaxy_of(chosen, picture))
            progress((len(galaxies), None), desc=sentence("several.progress"), unit="")
        frame = table_of(galaxies, chosen.tree, campaign, mixed=chosen.fast.mixed)
        with tempfile.TemporaryDirectory() as folder:
            csv, parquet = map(handed_over, write_tables(frame, folder))
        return frame[SHOWN], csv, parquet

    def show(
        self, files: list[str] | None, model: str, campaign: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - as above
    ) -> tuple[pd.DataFrame | None, str | None, str | None, str, gr.Column]:  # fmt: skip
        """The table and its files for the page, and a summary."""
        try:
            shown, csv, parquet = self.classify_several(files, model, campaign, progress)
        except BadInput as error:
            return None, None, None, failed_html(str(error)), gr.Column(visible=False)
        rejected = int(shown["description"].isna().sum())
        summary = sentence("several.done", pictures=len(shown) - rejected, rejected=rejected)
        shown["unlikeness"] = shown["unlikeness"].astype(float).round(2)
        return shown, csv, parquet, summary, gr.Column(visible=True)


def galaxy_of(model: GalaxyModel, picture: Picture | Rejected) -> Galaxy:
    """The prediction for a picture; for a rejected file, the reason."""
    if isinstance(picture, Rejected):
        return Galaxy(picture.name, note=picture.reason)
    prediction = model.predict(picture)
    note = sentence("several.unlike") if prediction.unlikeness > 1 else ""
    return Galaxy(picture.name, *prediction.votes, prediction.unlikeness, note)


def build(classifier: Classifier) -> None:
    """Build the tab, inside a gr.Tab."""
    titles = classifier.titles
    several = Several(classifier)
    gr.Markdown(sentence("several.lead"))
    with gr.Row():
        files = FileBox(
            label=sentence("several.files"), file_count="multiple", height=180, scale=2, min_width=280, elem_id="files"
        )
        with gr.Column(min_width=280):
            model = gr.Dropdown(titles, value=titles[0][1], label=sentence("classify.model"))
            campaign = gr.Dropdown(
                classifier.campaign_titles, value=classifier.campaigns[0], label=sentence("classify.campaign")
            )
            go = gr.Button(sentence("several.go"), variant="primary")
    done = gr.HTML(html_template='<div role="status">${value}</div>', elem_id="done")
    with gr.Column(visible=False) as answers:
        table = gr.Dataframe(
            label=sentence("several.table"), interactive=False, wrap=True, column_widths=WIDTHS, elem_id="table"
        )
        with gr.Row():
            csv = gr.DownloadButton(sentence("several.csv"), elem_id="csv")
            parquet = gr.DownloadButton(sentence("several.parquet"), elem_id="parquet")
    go.click(
        several.show, [files, model, campaign], [table, csv, parquet, done, answers], api_visibility="private", **ONE_BATCH
    )  # fmt: skip

    uploaded = FileBox(visible=False, label="files", file_count="multiple")
    names = [gr.Textbox(None, visible=False, label=each) for each in ("model", "campaign")]
    gr.Button(visible=False).click(
        as_endpoint(several.classify_several), [uploaded, *names], [gr.Dataframe(visible=False), gr.File(visible=False), gr.File(visible=False)],
        api_name="classify_several", **ONE_BATCH,
    )  # fmt: skip
