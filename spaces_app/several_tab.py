"""Several pictures at once: a table to look at and to download."""

import tempfile

import gradio as gr

from answers_page import failed_html
from classifier import Classifier, kindly
from files import FileBox, handed_over
from galaxy_models import GalaxyModel
from hf_galaxy.errors import BadInput
from several import Galaxy, table_of, write_tables
from text import say
from uploads import Picture, read_pictures

# Minutes long; who has one picture does not wait for it.
ONE_BATCH = {"concurrency_id": "batch", "concurrency_limit": 1}
SHOWN = ["name", "description", "unlikeness", "note"]  # of the table's columns; the files have all


class Several:
    """What the tab's button and its endpoint do."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier

    def classify_several(
        self, files: list[str], model: str | None = None, campaign: str | None = None,
        progress=gr.Progress(),  # noqa: B008 - how gradio learns that it is wanted
    ) -> tuple[dict, str, str]:  # fmt: skip
        """What volunteers would say of each of several pictures, as a table.

        Args:
            files: pictures, ZIP files of pictures, or CSV files with the columns ra and dec, in degrees, whose places are
                fetched from the viewer of the Legacy Surveys.
            model: name of a model, as the endpoint models lists them; the first by default.
            campaign: whose questions are answered; the model's first by default.

        Returns:
            The table without its fractions, for a look; as a CSV file; and as a Parquet file, with the columns of
            scripts/predict.py and the ends of 90 % intervals.
        """
        chosen, campaign = self.classifier.chosen(model, campaign)
        if not files:
            raise BadInput(say("several.no_files"))
        galaxies = []
        for found in read_pictures(files):
            galaxies.append(galaxy_of(chosen, found))
            progress((len(galaxies), None), desc=say("several.progress"), unit="")
        frame = table_of(galaxies, chosen.tree, campaign)
        with tempfile.TemporaryDirectory() as folder:
            csv, parquet = map(handed_over, write_tables(frame, folder))
        return frame[SHOWN], csv, parquet

    def show(self, files, model, campaign, progress=gr.Progress()):  # noqa: B008 - as above
        """The same for the page, and what was done, in words."""
        try:
            shown, csv, parquet = self.classify_several(files, model, campaign, progress)
        except BadInput as error:
            return None, None, None, failed_html(str(error)), gr.Column(visible=False)
        refused = int(shown["description"].isna().sum())
        return (
            shown,
            csv,
            parquet,
            say("several.done", pictures=len(shown) - refused, refused=refused),
            gr.Column(visible=True),
        )


def galaxy_of(model: GalaxyModel, found: Picture) -> Galaxy:
    """What a model says of a picture; of a refused one, why it was."""
    if not isinstance(found, Picture):
        return Galaxy(found.name, note=found.reason)
    looked = model.look(found)
    fractions, concentrations, _ = looked.answers
    return Galaxy(
        found.name, fractions[0], None if concentrations is None else concentrations[0], looked.unlikeness,
        say("several.unlike") if looked.unlikeness > 1 else "",
    )  # fmt: skip


def build(classifier: Classifier) -> None:
    """Lay out the tab, inside a gr.Tab."""
    titles = classifier.titles
    several = Several(classifier)
    gr.Markdown(say("several.lead"))
    with gr.Row():
        files = FileBox(
            label=say("several.files"), file_count="multiple", height=180, scale=2, min_width=280, elem_id="files"
        )
        with gr.Column(min_width=280):
            model = gr.Dropdown(titles, value=titles[0][1], label=say("classify.model"))
            campaign = gr.Dropdown(
                classifier.campaign_titles, value=classifier.campaigns[0], label=say("classify.campaign")
            )
            go = gr.Button(say("several.go"), variant="primary")
    done = gr.HTML(html_template='<div role="status">${value}</div>', elem_id="done")
    with gr.Column(visible=False) as answers:
        table = gr.Dataframe(label=say("several.table"), interactive=False, wrap=True, elem_id="table")
        with gr.Row():
            csv = gr.DownloadButton(say("several.csv"), elem_id="csv")
            parquet = gr.DownloadButton(say("several.parquet"), elem_id="parquet")
    go.click(
        several.show, [files, model, campaign], [table, csv, parquet, done, answers], api_visibility="private", **ONE_BATCH
    )  # fmt: skip

    given = FileBox(visible=False, label="files", file_count="multiple")
    names = [gr.Textbox(None, visible=False, label=each) for each in ("model", "campaign")]
    gr.Button(visible=False).click(
        kindly(several.classify_several), [given, *names], [gr.Dataframe(visible=False), gr.File(visible=False), gr.File(visible=False)],
        api_name="classify_several", **ONE_BATCH,
    )  # fmt: skip
