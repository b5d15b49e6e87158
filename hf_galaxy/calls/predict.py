"""`hf_galaxy.predict` and `hf_galaxy.embed`: the commands of these names as functions. Legend: N galaxies, D features."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from accelerate.utils import gather_object

from hf_galaxy.calls.process_state import own_process_state
from hf_galaxy.calls.run_folder import RunFolder
from hf_galaxy.commands.embed import Embed
from hf_galaxy.commands.predict import Inference, Predict, write
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.errors import BadInput
from hf_galaxy.files import check_new
from hf_galaxy.importing.joining import JoinedTable
from hf_galaxy.importing.objects import is_galaxies, name_of
from hf_galaxy.importing.reading import Reading
from hf_galaxy.models.familiarity import Familiarity
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.models.prediction_columns import PredictionColumns
from hf_galaxy.models.prediction_inputs import IN_MEMORY, Source, sources_of
from hf_galaxy.models.predictions import EMBEDDING, UNREADABLE, Predictor, unreadable_in
from hf_galaxy.models.start import backbone_of, load_model, refuse_bare_encoder
from hf_galaxy.training.processes import on_main_process
from hf_galaxy.typed_options import checked

logger = logging.getLogger(__name__)
# Types of joined columns, with missing cells, that pandas would else make floats and objects of.
NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


Model = str | Path | RunFolder | GalaxyPreTrainedModel


def predict(
    model: Model | Sequence[Model],
    data: Any,
    *,
    out: str | Path | None = None,
    config: str | None = None,
    split: str | None = None,
    keep: Sequence[str] | None = None,
    views: int = 1,
    embeddings_dtype: str = "float32",
    credible: float | None = None,
    answers: bool = False,
    ood: bool = True,
    embeddings: bool = False,
    csv: bool = False,
    format: Sequence[str] = ("parquet",),
    batch_size: int = 128,
    workers: int = 1,
    precision: str | None = None,
    cpu: bool = False,
    runtime: str = "torch",
    rendering: Rendering | Mapping[str, Any] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    bands: Sequence[str] | None = None,
    skip_missing: bool = False,
    skip_bad_pictures: bool = False,
    same_galaxy_arcsec: float = 20.0,
    join: str | Path | None = None,
    on: str | None = None,
    on_sky: str | None = None,
) -> pd.DataFrame | Path:
    """Predictions of a model for every galaxy of some data: what the command `hf-galaxy predict` does, the same numbers.

    A picture that cannot be read gets no row; a warning in the log says how many there are, and `.attrs["unreadable"]` of the table
    (or `unreadable.csv` in the folder `out`) lists each with its reason.

    Args:
        model: a run folder or its Hub id, a `Run`, or a model that is loaded already; or a list of such that answer the same questions: an
            ensemble, whose predictions are averaged.
        data: a published dataset (its folder or Hub id), a folder of picture files (JPEG, PNG, WebP, TIFF, FITS and others), including subfolders, or a list of
            such; or a picture, or a list of pictures: paths, URLs, bytes, PIL images, and arrays as `data.pixels.pixels_of` takes
            them; of fluxes also dictionaries {band: (H, W)} and tensors (C, H, W); or a column of pictures or of their paths, such as `dataset["image"]` or `catalogue["file"]`; or a table of galaxies, whose
            names the predictions have: its file ("survey.csv"), or a pandas DataFrame with a column of pictures or of their paths; or a
            `datasets.Dataset` or `DatasetDict`.
        out: a folder to create for Parquet files, for data whose predictions do not fit into memory. A call that was interrupted
            resumes when it is made again.
        config, split: of a published dataset; by default its default configuration, and all splits.
        keep: columns of the galaxies, such as ["ra", "dec"], that follow those of the predictions.
        views: average over this number of views of each galaxy: 4 quarter turns, or 8, also mirrored.
        embeddings_dtype: with `embeddings`, "float16" in place of "float32".
        credible: also give for each vote fraction, or each value, the ends of its credible interval of this probability, `_low` and `_high`.
        answers: also give for each question the probability that it is asked, `QUESTION_asked`, and its most expected answer,
            `QUESTION_answer`; of classes the most probable one, `class`.
        ood: if the run has the file of `hf-galaxy familiarity`, give `ood_score`, how far a galaxy lies from those of the training, and
            `unfamiliar`, whether it is beyond the threshold. A model that is loaded already has no such file.
        embeddings: also give the D features of the backbone, as a column `embedding` of arrays (D,) float32.
        csv: with `out`, write predictions.csv, too.
        format: with `out`, also write one table in these formats, of "csv", "fits" and "votable".
        batch_size: galaxies per forward pass, in each process.
        workers: processes that decode pictures; at most one for a published dataset.
        precision: "no", "bf16" or "fp16"; None: that of `accelerate config`.
        cpu: predict on the CPU even if there is a GPU.
        runtime: "onnx" computes the network with ONNX Runtime, which is faster on CPUs for many networks; it exports the model first, once.
        rendering: how files, and pictures in memory, become pictures such as those of the training set: stretch, part and size of each. None:
            as it was for the training set, as far as its card says so. A dictionary has some other values, such as {"stretch": "sqrt"}; a
            `data.pictures.Rendering` has all of them. The pictures of a published dataset have been rendered, and are as they are; so name it,
            since a list of its pictures is taken for pictures to render.
        images: of a table: folders or zip files of its pictures.
        image_column, id_column: of a table: the columns of the pictures and of the names; by default they are guessed, and the log says it.
        bands: of fluxes: what the planes in files are called, in their order; by default as the model calls them.
        skip_missing, skip_bad_pictures: of a table: leave out galaxies without a picture, or whose picture cannot be read.
        same_galaxy_arcsec: of a table with positions: rows closer than this are in one split.
        join: a table (CSV, Parquet, FITS, VOTable, ECSV) whose columns follow those of the predictions, missing where a galaxy is not in it.
        on: the column that the galaxies and this table share, such as "id_str"; or "id_str=objid", if the table has another name for it.
        on_sky: instead, the radius within which its nearest row is the same galaxy, such as "1arcsec", by ra and dec of the dataset and of
            the table.

    Returns:
        A table with a row for each galaxy. `dataset`, `split` and `id_str` identify it (a file in a folder by its name). For votes,
        each answer has an expected `_fraction` of the volunteers, from 0 to 1, and in the Dirichlet distributions that the model predicts a `_concentration`, of a mixture of two also a `_concentration_2`, where each question has the `_weight` of the first;
        each class, or label, has a `_probability`; values have their names and units, and a `_std`. All these numbers are float32. With `out`: its path;
        `datasets.load_dataset("parquet", data_files=f"{out}/*.parquet")` reads it.

    Raises:
        BadInput: there is no such model or data; an option is of the wrong type; or `out` exists already.

    Example:
        >>> table = hf_galaxy.predict("runs/rings", "new_pictures/")
        >>> table.sort_values("ring_probability").tail()
    """
    reading = dict(config=config, images=images, image_column=image_column, id_column=id_column, bands=bands)
    skipping = dict(
        skip_missing=skip_missing, skip_bad_pictures=skip_bad_pictures, same_galaxy_arcsec=same_galaxy_arcsec
    )
    joining = dict(join=join, on=on, on_sky=on_sky)
    computing = dict(keep=keep, views=views, embeddings_dtype=embeddings_dtype, runtime=runtime)
    given = _options(
        {**reading, **skipping, **joining, **computing}, split, batch_size, workers, precision, cpu, rendering
    )
    if csv and out is None:
        raise BadInput("csv: is for a folder `out`; a table has .to_csv")
    wanted = checked(Predict, dict(credible=credible, answers=answers, ood=ood, format=format))
    formats = [*wanted["format"], *(["csv"] if csv else [])]
    if {*formats} - {"parquet"} and out is None:
        raise BadInput("format: is for a folder `out`")
    several = list(model) if isinstance(model, list | tuple) else [model]
    if not several:
        raise BadInput("model: is an empty list; give a run, or several")
    with own_process_state(Predict):
        inference = Inference(**given)
        accelerator = inference.start()
        if out is not None:
            on_main_process(accelerator, check_new, Path(out))
        joined = JoinedTable.of(inference)
        models, names = zip(*map(_loaded_or_read, several), strict=True)
        # Weights in memory may have changed since the file was made.
        has_file = not isinstance(several[0], GalaxyPreTrainedModel)
        familiarity = Familiarity.of_run(names[0]) if wanted["ood"] and has_file else None
        members = len(models) * inference.views
        columns = PredictionColumns(models[0], wanted["credible"], wanted["answers"], familiarity, members, models[1:])
        with _as_they_were(models):
            predictor = inference.predictor(models, names, accelerator, columns, embeddings)
            sources = _sources(data, inference.for_model(models[0].config.bands), joined, predictor)
            return _table(predictor, sources) if out is None else _folder(predictor, sources, Path(out), formats)


def embed(
    model: Model,
    data: Any,
    *,
    out: str | Path | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    config: str | None = None,
    split: str | None = None,
    keep: Sequence[str] | None = None,
    views: int = 1,
    embeddings_dtype: str = "float32",
    batch_size: int = 128,
    workers: int = 1,
    precision: str | None = None,
    cpu: bool = False,
    runtime: str = "torch",
    rendering: Rendering | Mapping[str, Any] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    bands: Sequence[str] | None = None,
    skip_missing: bool = False,
    skip_bad_pictures: bool = False,
    same_galaxy_arcsec: float = 20.0,
    join: str | Path | None = None,
    on: str | None = None,
    on_sky: str | None = None,
) -> pd.DataFrame | Path:
    """Features of a backbone, of a finished run or only pretrained, for every galaxy of some data: what `hf-galaxy embed` does.

    Features of similar galaxies are near to each other: they serve to search, to cluster, and to train classical methods on.

    Args:
        model: a run folder or its Hub id, a `Run`, a loaded model; or a pretrained backbone: a timm model name with its tag
            ("convnext_atto.d2_in1k"), "hf_hub:ORG/NAME", "transformers:FOLDER_OR_HUB_ID", or a file of timm weights.
        data, out, config, split, keep, views, embeddings_dtype, batch_size, workers, precision, cpu, runtime, rendering, images, image_column, id_column,
            bands, skip_missing, skip_bad_pictures, same_galaxy_arcsec, join, on, on_sky: as of `predict`.
        backbone: architecture of a file of weights.
        image_size: side of the backbone's input in pixels; by default that of the run, else 224.

    Returns:
        A table (N, D) of float32, `feature_0`, `feature_1`, ..., with the `id_str` of the galaxies as its index: so `.to_numpy()` is
        the matrix for scikit-learn, and `catalogue.join(table, on="id_str")` puts it beside other columns. Columns of `join` follow the
        features. With `out`: the path of a folder of Parquet files, as `predict` writes them, with a column `embedding`.

    Raises:
        BadInput: as `predict`.

    Example:
        >>> features = hf_galaxy.embed("convnext_atto.d2_in1k", "data/rings", split="train")
        >>> sklearn.decomposition.PCA(2).fit_transform(features)
    """
    reading = dict(config=config, images=images, image_column=image_column, id_column=id_column, bands=bands)
    skipping = dict(
        skip_missing=skip_missing, skip_bad_pictures=skip_bad_pictures, same_galaxy_arcsec=same_galaxy_arcsec
    )
    joining = dict(join=join, on=on, on_sky=on_sky)
    computing = dict(keep=keep, views=views, embeddings_dtype=embeddings_dtype, runtime=runtime)
    given = _options(
        {**reading, **skipping, **joining, **computing}, split, batch_size, workers, precision, cpu, rendering
    )
    with own_process_state(Embed):
        inference = Inference(**given)
        accelerator = inference.start()
        if out is not None:
            on_main_process(accelerator, check_new, Path(out))
        joined = JoinedTable.of(inference)
        found = _loaded(model)
        if found and (backbone, image_size) != (None, None):
            raise BadInput("backbone and image_size: a loaded model has its own")
        loaded, name = found or (backbone_of(str(model), backbone, image_size), str(model))
        with _as_they_were([loaded]):
            predictor = inference.predictor([loaded], [name], accelerator, None, embeddings=True)
            sources = _sources(data, inference.for_model(loaded.config.bands), joined, predictor)
            if out is not None:
                return _folder(predictor, sources, Path(out))
            table = _table(predictor, sources)
    features = np.stack(table[EMBEDDING]) if len(table) else np.empty((0, loaded.head.in_features), np.float32)
    columns = [f"feature_{i}" for i in range(features.shape[1])]
    embedded = pd.DataFrame(features, pd.Index(table["id_str"], name="id_str"), columns)
    for name in table.columns[len(predictor.schema) :]:
        embedded[name] = table[name].to_numpy()
    embedded.attrs = table.attrs
    return embedded


def _options(
    reading: Mapping[str, Any],
    split: str | None,
    batch_size: int,
    workers: int,
    precision: str | None,
    cpu: bool,
    rendering: Rendering | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The options of the commands."""
    values = dict(split=split, batch_size=batch_size, workers=workers, precision=precision, cpu=cpu)
    rendered = asdict(rendering) if isinstance(rendering, Rendering) else dict(rendering or {})
    if unknown := rendered.keys() - set(Inference.of_rendering):
        raise BadInput(f"rendering: {sorted(map(str, unknown))[0]} is none of {', '.join(Inference.of_rendering)}")
    if "size" in rendered:
        rendered["size"] = rendered["size"] or 0  # as None stands for what is not given
    return checked(Inference, {**reading, **values, **rendered})


def _loaded(model: Any) -> tuple[GalaxyPreTrainedModel, str] | None:
    """A model that is there already, and its name; None for a name."""
    if isinstance(model, RunFolder):
        return model.model, str(model.folder)
    if isinstance(model, GalaxyPreTrainedModel):
        return model, str(model.config.name_or_path)
    if isinstance(model, str | Path):
        return None
    raise BadInput(
        f"model: a {type(model).__name__} is none of ours; give a run, its folder or Hub id, or a model loaded from it"
    )


def _loaded_or_read(model: Any) -> tuple[GalaxyPreTrainedModel, str]:
    """A model with a head, and its name."""
    if loaded := _loaded(model):
        return loaded
    refuse_bare_encoder(str(model))
    return load_model(str(model)), str(model)


def _sources(data: Any, inference: Inference, joined: JoinedTable | None, predictor: Predictor) -> list[Source]:
    split, taken, rendering, keep = inference.split, predictor.schema.names, predictor.rendering, inference.keep
    if is_galaxies(data):
        sources = sources_of(
            [name_of(data, inference, rendering)], Reading(bands=inference.bands), split, joined, taken, keep=keep
        )
        for source in sources:
            source.name = type(data).__name__  # not the folder of its import
        return sources
    if isinstance(data, pd.Series | pd.Index) or (isinstance(data, np.ndarray) and data.dtype.kind in "OUT"):
        data = data.tolist()  # such as the paths in a catalogue
    if isinstance(data, np.ndarray) and data.ndim == 4:
        raise BadInput(
            f"data: an array of shape {data.shape} holds several pictures; pass a list of arrays: list(data)"
        )
    single = isinstance(data, (str, Path, *IN_MEMORY)) or not isinstance(data, Sequence)
    return sources_of([data] if single else data, inference, split, joined, taken, rendering, keep)


@contextmanager
def _as_they_were(models: Sequence[GalaxyPreTrainedModel]) -> Iterator[None]:
    """Within the block the models may go to another device, and are in evaluation mode."""
    devices = [model.device for model in models]
    # A frozen part may have another mode than the rest.
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for model, device in zip(models, devices, strict=True):
            model.to(device)
        for module, training in modes:
            module.training = training


def _folder(predictor: Predictor, sources: list[Source], out: Path, formats: Sequence[Any] = ()) -> Path:
    galaxies, unreadable = write(predictor, sources, out, dict.fromkeys(formats))
    logger.info("%s: %s galaxies", out, f"{galaxies:,}")
    if unreadable:
        logger.warning("%d pictures cannot be read; %s lists them with the reasons", unreadable, out / "unreadable.csv")
    return out


def _table(predictor: Predictor, sources: list[Source]) -> pd.DataFrame:
    """The predictions of all galaxies, in their order, in every process."""
    own = [(part.file, part.source, table) for part, table in predictor.tables(sources, predictor.own_parts(sources))]
    parts = sorted(gather_object(own), key=lambda part: part[0])
    bad = [each for _, source, table in parts for each in unreadable_in(table.schema.metadata, sources[source])]
    whole = pa.concat_tables([table.replace_schema_metadata() for *_, table in parts]).to_pandas(
        types_mapper=NULLABLE.get
    )
    whole.attrs["unreadable"] = [dict(zip(UNREADABLE, each, strict=True)) for each in bad]
    if bad:
        _, _, name, reason = bad[0]
        logger.warning(
            "%d pictures cannot be read, such as %s: %s; .attrs['unreadable'] of the table lists them with the reasons", len(bad), name,
            reason,
        )  # fmt: skip
    return whole
