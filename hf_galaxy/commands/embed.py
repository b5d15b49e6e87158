"""Embeddings: the features of a backbone, pretrained or of a finished run, for every galaxy of a dataset or of a folder of pictures.

hf-galaxy embed --model convnext_atto.d2_in1k --dataset data/ceers --out embeddings/ceers
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from hf_galaxy.command_line import Command, OutputPath
from hf_galaxy.commands.predict import InParts, report, write
from hf_galaxy.files import check_new


@dataclass(frozen=True, kw_only=True)
class Embed(InParts):
    """Write the features of a backbone, one row per galaxy, in Parquet files. An interrupted command resumes when it is run again."""

    model: Annotated[str, tyro.conf.arg(aliases=("--start", "--run"))]
    """A run folder or its Hub id, a timm model name with its tag (convnext_atto.d2_in1k), hf_hub:ORG/NAME, transformers:FOLDER_OR_HUB_ID, or a .safetensors or .pth file of timm weights."""
    dataset: tuple[str, ...]
    """One or several: folders of picture files (JPEG, PNG, WebP, TIFF, FITS and others), including subfolders, or published datasets (folders or Hub ids), or tables of galaxies (survey.csv, with --images); or picture files."""
    out: OutputPath
    """Output folder, created by the command: part-*.parquet with a column `embedding`, _columns.md, and unreadable.csv if pictures cannot be read."""
    backbone: str | None = None
    """Architecture of a file of weights."""
    image_size: int | None = None
    """Side of the backbone's input in pixels; by default that of the run in --model, else 224."""


def main(settings: Embed) -> None:
    settings.check_there(settings.dataset)
    from hf_galaxy.importing.joining import JoinedTable
    from hf_galaxy.models.prediction_inputs import sources_of
    from hf_galaxy.models.start import backbone_of
    from hf_galaxy.training.processes import on_main_process

    accelerator = settings.start()
    on_main_process(accelerator, check_new, settings.out)
    table = JoinedTable.of(settings)
    model = backbone_of(settings.model, settings.backbone, settings.image_size)
    predictor = settings.predictor([model], [settings.model], accelerator, None, embeddings=True)
    reading = settings.for_model(model.config.bands)
    sources = sources_of(
        settings.dataset, reading, settings.split, table, predictor.schema.names, predictor.rendering, settings.keep
    )
    counts = write(predictor, sources, settings.out, share=settings.share())
    if accelerator.is_main_process:
        report(settings.out, *counts, settings.part)


command = Command(Embed, main)

if __name__ == "__main__":
    command()
