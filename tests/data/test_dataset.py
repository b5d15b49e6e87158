"""Whatever the dataset, copied or streamed: its pictures are decoded exactly, and every galaxy is seen as often as it should be."""

import io
import itertools
import math
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from hf_galaxy import load_tree
from hf_galaxy.data import galaxies as galaxies_module
from hf_galaxy.data.dataset import holds_parquet, rows_of
from hf_galaxy.data.galaxies import Galaxies, decode, decode_batch
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.schema import votes_in
from hf_galaxy.data.splits import strata_of
from hf_galaxy.data.streaming import open_stream
from hf_galaxy.data.targets import tables_of
from hf_galaxy.data.views import Framing
from hf_galaxy.errors import BadInput
from hf_galaxy.importing import counts
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.duplicates import fine_structure
from hf_galaxy.models.prediction_inputs import Part, PictureFolder, Reader
from hf_galaxy.publishing import check, overlap
from hf_galaxy.publishing.dataset_card import contact_sheet
from hf_galaxy.randomness import key_of
from hf_galaxy.training.sequence import (
    ProcessShard,
    TrainingSequence,
    default_workers,
    evaluation_batches,
    training_batches,
)
from hf_galaxy.training.targets.classes import Classes
from hf_galaxy.training.targets.values import Values
from hf_galaxy.training.targets.votes import Votes, check_tree_columns, vote_batches
from tests.galaxies import Rows, jpeg_bytes, published, votes_of

TREE = load_tree("gz_rings")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published dataset of 300 galaxies."""
    folder = tmp_path_factory.mktemp("dataset")
    published(Rows(300), folder)
    return folder


@pytest.fixture(params=[False, True], ids=["copied", "streamed"])
def opened(folder, request):
    """Its splits, both ways."""
    return open_dataset(str(folder), streaming=request.param)


def test_messages_name_what_is_missing(opened, tmp_path):
    with pytest.raises(BadInput, match="no split 'dev', only train"):
        rows_of(opened, "dev", "x")
    with pytest.raises(BadInput, match=r"lacks 30 of the 30.*smooth-or-featured-gz2_smooth"):
        check_tree_columns(opened["train"].column_names, load_tree("gz2"), "x")
    with pytest.raises(BadInput, match="no class label 'ring'; its label columns: kind"):
        Classes.of_rows(opened["train"], "ring", "x")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match="neither Parquet files nor pictures; give a folder"):
        open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="nobody/nothing"):
        open_dataset("nobody/nothing")


def test_votes_come_in_batches_of_a_split_in_its_order(opened):
    rows = opened["train"]
    table = rows.select_columns(TREE.columns).with_format("arrow")[:]
    expected = np.stack([table[column].to_numpy() for column in TREE.columns], axis=1)
    np.testing.assert_array_equal(np.concatenate(list(vote_batches(rows, TREE))), expected)
    tables = list(tables_of(rows, TREE.columns, size=17))
    assert [len(table) for table in tables[:-1]] == [17] * (len(rows) // 17)
    np.testing.assert_array_equal(np.concatenate([votes_in(table, TREE) for table in tables]), expected)


def galaxies_of(opened, target, split="train"):
    return Galaxies(opened[split], Framing(32), target)


def test_batches_hold_votes_in_the_trees_order_or_labels(opened, folder):
    batch = galaxies_of(opened, Votes(TREE))[[3, 1]]
    assert batch["pixels"].shape == (2, 3, 32, 32)
    assert (batch["votes"][:, 1] == 2 * batch["votes"][:, 0]).all()
    np.testing.assert_array_equal(batch["votes"], votes_of(open_dataset(str(folder))["train"], TREE)[[3, 1]])
    assert (
        galaxies_of(opened, Classes("kind", ("a", "b")))[[0, 1, 2]]["labels"].tolist()
        == open_dataset(str(folder))["train"][:3]["kind"].to_pylist()
    )


def test_keys_stand_for_the_names_of_galaxies(opened):
    rows = opened["train"]
    names = rows.select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()
    keyed = Galaxies(rows, Framing(32), Votes(TREE), keyed=True)
    assert keyed[[3, 1]]["keys"].tolist() == [key_of(names[3]), key_of(names[1])]
    assert "keys" not in galaxies_of(opened, Votes(TREE))[[0]]
    unnamed = Galaxies(rows.select_columns(["image", *TREE.columns]), Framing(32), Votes(TREE), keyed=True)
    assert unnamed[[3]]["keys"].tolist() == [key_of("3")]


def test_missing_votes_are_no_votes_and_galaxies_without_a_label_are_left_out(tmp_path):
    whole = Rows(30)
    gaps = [whole.row(i).columns | ({"ring_yes": None, "kind": None} if i % 3 == 0 else {}) for i in range(30)]
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list(gaps, features=whole.features).to_parquet(tmp_path / "data/train.parquet")
    for streaming in (False, True):
        splits = datasets.load_dataset(str(tmp_path)) if not streaming else open_stream(str(tmp_path))
        rows = splits["train"]
        assert votes_of(rows, TREE)[[0, 1, 3]].tolist() == [[0, 0], [1, 2], [0, 6]]
        assert Galaxies(rows, Framing(32), Votes(TREE))[[0, 1]]["votes"].tolist() == [[0, 0], [1, 2]]
        having, labels = Classes("kind", ("a", "b")).labelled(rows, "x")
        assert (len(having), len(labels)) == (20, 20)
        assert (
            Galaxies(having, Framing(32), Classes("kind", ("a", "b")))[list(range(20))]["labels"].tolist()
            == labels.tolist()
        )
        with pytest.raises(BadInput, match="none of its 2 galaxies has a 'kind'"):
            Classes("kind", ("a", "b")).labelled(rows.select(np.array([0, 3])), "x")


def survey_of_votes(folder, tree, kind, **wrong):
    """30 galaxies with votes of a tree in columns of a type, (answer, galaxy) -> another number; and their votes."""
    votes = np.arange(30 * len(tree.columns)).reshape(30, -1) % 41
    columns = {column: votes[:, a].astype(kind) for a, column in enumerate(tree.columns)}
    columns[tree.columns[1]][list(wrong.get("rows", ()))] = wrong.get("number", 0)
    names = {"id_str": [f"g{i}" for i in range(30)], "image": pictures(30)}
    features = {"id_str": datasets.Value("string"), "image": datasets.Image()}
    features |= {column: datasets.Value(kind) for column in tree.columns}
    (folder / "data").mkdir()
    rows = datasets.Dataset.from_dict(names | columns, features=datasets.Features(features))
    rows.to_parquet(folder / "data/train.parquet")
    return votes


@pytest.mark.parametrize("streaming", [False, True], ids=["copied", "streamed"])
@pytest.mark.parametrize("tree", ["gz_rings", "gz2"], ids=["few columns", "many columns"])
@pytest.mark.parametrize(
    ("kind", "number", "reason"),
    [
        ("float64", 3.7, "not whole"),
        ("float32", 0.9, "not whole"),
        ("float64", np.inf, "too large"),
        ("int64", 2**40, "too large"),
        ("float32", -99, "-99, but"),
        ("int32", -99, "-99, but"),
    ],
)
def test_a_number_that_is_no_vote_is_refused_wherever_votes_are_read(tmp_path, streaming, tree, kind, number, reason):
    tree = load_tree(tree)
    survey_of_votes(tmp_path, tree, kind, rows=[20], number=number)
    rows = open_dataset(str(tmp_path), streaming=streaming)["train"]
    names = rows.select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()
    wrong = names.index("g20")
    message = rf"--dataset {tmp_path}, id_str g20, column {tree.columns[1]}: .*{reason}"
    with pytest.raises(BadInput, match=message):
        list(vote_batches(rows, tree))
    with pytest.raises(BadInput, match=message):
        strata_of(rows, Votes(tree))
    with pytest.raises(BadInput, match=message):
        Galaxies(rows, Framing(32), Votes(tree))[[3, wrong]]
    later = rows.select(np.arange(wrong, len(rows)))  # the galaxy is the first of those
    with pytest.raises(BadInput, match=message):
        Galaxies(later, Framing(32), Votes(tree))[[1, 0]]
    assert len(Galaxies(rows, Framing(32), Votes(tree))[[0, 1]]["votes"]) == 2
    others = rows.select(np.delete(np.arange(len(rows)), wrong))
    assert len(np.concatenate(list(vote_batches(others, tree)))) == len(others)


@pytest.mark.parametrize("streaming", [False, True], ids=["copied", "streamed"])
@pytest.mark.parametrize("tree", ["gz_rings", "gz2"], ids=["few columns", "many columns"])
@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "uint8"])
def test_whole_votes_of_any_type_are_votes(tmp_path, streaming, tree, kind):
    votes = survey_of_votes(tmp_path, load_tree(tree), kind)
    rows = open_dataset(str(tmp_path), streaming=streaming)["train"]
    names = rows.select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()
    expected = votes[[int(name[1:]) for name in names]]
    np.testing.assert_array_equal(np.concatenate(list(vote_batches(rows, load_tree(tree)))), expected)


def test_a_class_label_of_minus_one_is_missing():
    """So the datasets library writes it: neither the last class nor one of the rest."""
    features = datasets.Features({"kind": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = datasets.Dataset.from_dict({"kind": [0, -1, None, 2, 1]}, features)
    for text, expected in (("kind", [0, -1, -1, 2, 1]), ("kind=c", [0, -1, -1, 1, 0])):
        label = Classes.of_rows(rows, text, "x")
        assert label.indices(rows.with_format("arrow")[:], features["kind"]).tolist() == expected
        assert strata_of(rows, label).tolist() == expected
        assert label.labelled(rows, "x")[1].tolist() == [each for each in expected if each >= 0]
    table = pa.table({"kind": [0, 3]})
    with pytest.raises(BadInput, match="row 1, column kind: 3 is no class; there are only 3: a, b, c"):
        Classes.parse("kind", ["a", "b", "c"]).indices(table, features["kind"])


def test_a_text_column_is_a_label_and_an_empty_text_is_none(tmp_path):
    rows = datasets.Dataset.from_dict({"summary": ["spiral", "", "edge_on_disk", None, "spiral"]})
    label = Classes.of_rows(rows, "summary", "x")
    assert label == Classes("summary", ("edge_on_disk", "spiral"))
    having, indices = label.labelled(rows, "x")
    assert (having["summary"][:], indices.tolist()) == (["spiral", "edge_on_disk", "spiral"], [1, 0, 1])
    with pytest.raises(BadInput, match="holds 1 different texts"):
        Classes.of_rows(datasets.Dataset.from_dict({"summary": ["a", "a"]}), "summary", "x")


def test_one_class_is_told_from_the_rest_by_name(tmp_path):
    """Of a ClassLabel, whatever the place of the class among the others, and of texts; a galaxy without a label stays one."""
    names = ["spiral", None, "merger", "", "round", "merger", "spiral"]
    expected = [0, 1, 0, 1, 0]
    for others in (["merger", "round", "spiral"], ["spiral", "round", "never", "merger"]):
        features = datasets.Features({"kind": datasets.ClassLabel(names=others), "text": datasets.Value("string")})
        of_classes = [name or None for name in names]
        rows = datasets.Dataset.from_dict({"kind": of_classes, "text": names}, features)
        for column in ("kind", "text"):
            label = Classes.of_rows(rows, f"{column}=merger", "x")
            assert (
                label
                == Classes(column, ("not merger", "merger"), "merger")
                == Classes.parse(f"{column}=merger", label.names)
            )
            having, indices = label.labelled(rows, "x")
            assert indices.tolist() == expected
            assert strata_of(rows, label).tolist() == [0, -1, 1, -1, 0, 1, 0]
            galaxies = Galaxies(having.add_column("image", pictures(5)), Framing(32), label)
            assert galaxies[[0, 1, 4]]["labels"].tolist() == [0, 1, 0]
        assert Classes.parse("kind", others) == Classes.of_rows(rows, "kind", "x") == Classes("kind", tuple(others))
        with pytest.raises(BadInput, match=f"--dataset x: 'kind' has no class 'bar' .* only {', '.join(others)}"):
            Classes.of_rows(rows, "kind=bar", "x")
        with pytest.raises(BadInput, match=r"'text' has no class '' .* only merger, round, spiral"):
            Classes.of_rows(rows, "text=", "x")
        with pytest.raises(BadInput, match="has no class label 'shape'"):
            Classes.of_rows(rows, "shape=merger", "x")
        with pytest.raises(BadInput, match="'kind' has no class 'bar'"):
            strata_of(rows, Classes.parse("kind=bar", ()))
    # A text that no training galaxy has is one of the rest; without one class it is no label.
    other = datasets.Dataset.from_dict({"text": ["ring", "merger"]})
    assert label.labelled(other, "x")[1].tolist() == [0, 1]


def pictures(count):
    return [{"bytes": jpeg_bytes(i), "path": None} for i in range(count)]


@pytest.fixture
def survey(tmp_path):
    """Rows with numbers of several types, copied and streamed; the galaxy 1 has no redshift, 2 no count, 4 neither."""
    (tmp_path / "data").mkdir()
    columns = {
        "id_str": [f"g{i}" for i in range(6)],
        "image": [{"bytes": jpeg_bytes(i), "path": None} for i in range(6)],
        "count": [7, 0, None, 3, None, 1],
        "redshift": [0.1, None, 0.5, 1.0, float("nan"), 0.0],
        "text": list("abcdef"),
        "kind": [0, 1, 0, 1, 0, 1],
    }
    features = datasets.Features(
        {"id_str": datasets.Value("string"), "image": datasets.Image(), "count": datasets.Value("int64")}
        | {"redshift": datasets.Value("float32"), "text": datasets.Value("string")}
        | {"kind": datasets.ClassLabel(names=["a", "b"])}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data/train.parquet")
    return [datasets.load_dataset(str(tmp_path))["train"], open_stream(str(tmp_path))["train"]]


def test_values_are_numbers_of_any_type_and_missing_ones_are_nan(survey):
    for rows in survey:
        values = Values.of_rows(rows, ("redshift", "count"), "x")
        having, strata = values.labelled(rows, "--dataset x: split train")
        numbers = values.numbers(having.select_columns(list(values.columns)).with_format("arrow")[:])
        expected = np.float32([[0.1, 7], [np.nan, 0], [0.5, np.nan], [1, 3], [0, 1]])
        np.testing.assert_array_equal(numbers.astype(np.float32), expected)
        assert strata.tolist() == [3, 2, 1, 3, 3]
        batch = Galaxies(having, Framing(32), values)[[4, 1, 0]]
        assert batch["labels"].dtype == torch.float32
        np.testing.assert_array_equal(batch["labels"], expected[[4, 1, 0]])


def test_what_cannot_be_learnt_as_values_is_refused(survey):
    for rows in survey:
        for wrong in ("text", "kind", "mass", "image"):
            hint = r"'text' holds texts: write it as numbers \(pandas.to_numeric\); " if wrong == "text" else ""
            with pytest.raises(
                BadInput, match=f"no column of numbers '{wrong}'; {hint}those that it has: redshift, count$"
            ):
                Values.of_rows(rows, ("redshift", wrong), "x")
        with pytest.raises(BadInput, match="to learn without --values; those that it has: redshift, count"):
            Values.of_rows(rows, (), "x")
        with pytest.raises(BadInput, match=r"split dev, id_str g0, column count: 7 is not in \[0, 1\]"):
            Values.of_rows(rows, ("redshift", "count"), "x", unit_interval=True).labelled(rows, "split dev")
        assert len(Values.of_rows(rows, ("redshift",), "x", unit_interval=True).labelled(rows, "x")[0]) == 4
        with pytest.raises(BadInput, match="split dev: none of its 1 galaxies has redshift or count"):
            Values(("redshift", "count")).labelled(rows.select(np.array([4])), "split dev")


@pytest.mark.parametrize("wrong", [float("inf"), -1e44])
def test_a_value_that_float32_cannot_hold_is_refused(wrong):
    rows = datasets.Dataset.from_dict({"id_str": ["g0", "g1"], "luminosity": [1.0, wrong]})
    with pytest.raises(BadInput, match=r"x, id_str g1, column luminosity: -?(inf|1e\+44) is too large"):
        Values(("luminosity",)).labelled(rows, "x")


def test_a_validation_split_is_taken_from_train_where_there_is_none(folder, tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        shutil.copy(folder / f"data/{split}-00000.parquet", tmp_path / "data")
    whole = open_dataset(str(folder))["train"][:]["id_str"].to_pylist()
    copied, streamed = (open_dataset(str(tmp_path), streaming=streaming) for streaming in (False, True))
    for opened in (copied, streamed):
        names = [
            opened[s].select_columns(["id_str"]).with_format("arrow")[:]["id_str"].to_pylist()
            for s in ("train", "validation")
        ]
        assert sorted(names[0] + names[1]) == sorted(whole)
        assert 0.05 < len(names[1]) / len(whole) < 0.2
        assert set(opened) == {"train", "validation", "test"}


def encoded(pixels, mode="RGB", form="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (90, 123, 3), dtype=np.uint8)


@pytest.mark.parametrize("shorter", [None, 200, 90, 44, 20])
@pytest.mark.parametrize(
    "content",
    [encoded(NOISE), encoded(NOISE, "L"), encoded(NOISE, "CMYK"), encoded(NOISE, progressive=True), encoded(NOISE, form="PNG"),
     encoded(NOISE, "RGBA", "PNG"), encoded(NOISE, "P", "PNG"), encoded(NOISE, form="WEBP")],
    ids=["rgb", "grey", "cmyk", "progressive", "png", "opaque", "palette", "webp"],
)  # fmt: skip
def test_pictures_are_decoded_as_pillow_does_it_with_and_without_simplejpeg(content, shorter, monkeypatch):
    pixels = decode(content, shorter)
    assert min(pixels.shape[:2]) >= min(90, shorter or 90)
    batch = decode_batch([content] * 3, shorter)
    assert batch.shape == (3, *pixels.shape)
    assert (batch == pixels).all()
    monkeypatch.setattr(galaxies_module, "simplejpeg", None)
    np.testing.assert_array_equal(decode(content, shorter), pixels)
    np.testing.assert_array_equal(decode_batch([content] * 2, shorter)[1], pixels)
    if shorter is None:
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


SEE_THROUGH = np.dstack([NOISE, np.random.default_rng(1).integers(0, 256, NOISE.shape[:2], dtype=np.uint8)])
KEYED = tuple(map(int, NOISE[0, 0]))
USED = int(
    np.bincount(np.asarray(Image.fromarray(NOISE).convert("P")).ravel()).argmax()
)  # the commonest of its palette


@pytest.mark.parametrize(
    "content",
    [
        encoded(SEE_THROUGH, "RGBA", "PNG"),
        encoded(SEE_THROUGH, "LA", "PNG"),
        encoded(NOISE, "P", "PNG", transparency=USED),
        encoded(NOISE, "RGB", "PNG", transparency=KEYED),
    ],
    ids=["rgba", "grey", "palette", "one colour"],
)
def test_a_transparent_picture_lies_over_black_at_every_door(content, tmp_path):
    """In training and evaluation, prediction, the pipeline, publishing, the comparison and the check of datasets."""
    over = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(float)
    expected = np.rint(over[..., :3] * over[..., 3:] / 255)
    pixels = decode(content)
    assert np.abs(pixels - expected).max() <= 1
    assert np.abs(pixels - np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)).max() > 30
    np.testing.assert_array_equal(decode_batch([content] * 2)[1], pixels)
    (tmp_path / "a.png").write_bytes(content)
    rendering = Rendering()
    for seen in (
        np.asarray(rendering.open(content).convert("RGB")),
        np.asarray(Image.open(io.BytesIO(rendering.render(content)[0]))),
        *(pixels_of(each) for each in (content, tmp_path / "a.png", Image.open(io.BytesIO(content)))),
        Reader([PictureFolder(str(tmp_path))], [Part("", 0, 0, 1)], Framing(90), rendering).decoded(content),
    ):
        np.testing.assert_array_equal(seen, pixels)
    square, _ = overlap._square(content)
    box = (16.5, 0, 106.5, 90)
    grey = Image.fromarray(pixels).convert("L").resize((overlap.SIDE,) * 2, Image.Resampling.BICUBIC, box=box)
    np.testing.assert_array_equal(np.asarray(square), np.asarray(grey))
    np.testing.assert_array_equal(check._decoded(content)[1], fine_structure(Image.fromarray(pixels)))
    sheet = contact_sheet([{"image": {"bytes": content}, "id_str": "a"}], "id_str", columns=1)
    shown = Image.fromarray(pixels).resize((142, 142), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(sheet.crop((0, 0, 142, 142))), np.asarray(shown))


def test_a_picture_of_very_many_pixels_is_refused_by_its_header(monkeypatch):
    """With simplejpeg, which would decode it, and with Pillow, which only warns up to twice as many."""
    contents = [encoded(NOISE), encoded(NOISE, "CMYK"), encoded(NOISE, form="PNG")]
    for fewer in (2, 3):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 123 // fewer)
        for fast in (galaxies_module.simplejpeg, None):
            monkeypatch.setattr(galaxies_module, "simplejpeg", fast)
            for content in contents:
                with pytest.raises(BadInput, match=r"pixels"):
                    decode(content)
                assert "pixels" in check._decoded(content)
                assert counts._size(content) == "no picture"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 123)
    assert [decode(content).shape for content in contents] == [NOISE.shape] * 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there is no picture"), (b"", "."), (b"text", "."), (encoded(NOISE)[:900], "."), (encoded(NOISE, form="PNG")[:900], "truncated"),
     (encoded(NOISE, form="PNG")[:-12], "is truncated"), (encoded(NOISE, form="PNG").replace(b"IDAT", b"IDAX"), ".")],
    ids=["none", "empty", "text", "jpeg", "png", "end of png", "no pixels"],
)  # fmt: skip
def test_whatever_a_decoder_raises_means_that_the_picture_is_no_good(content, reason, monkeypatch):
    for fast in (galaxies_module.simplejpeg, None):
        monkeypatch.setattr(galaxies_module, "simplejpeg", fast)
        with pytest.raises(BadInput, match=reason):
            decode(content)


def test_a_jpeg_is_decoded_at_half_or_a_quarter_if_that_is_large_enough():
    assert decode(encoded(NOISE), 45).shape == (45, 62, 3)
    assert decode(encoded(NOISE), 46).shape == (90, 123, 3)
    assert decode(encoded(NOISE), 11).shape == (12, 16, 3)


def test_a_picture_of_more_than_8_bits_is_refused_rather_than_clipped():
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 4000, dtype=np.uint16)).save(file, "PNG")
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode(file.getvalue())


def test_a_picture_that_is_none_is_refused_by_its_name_be_it_a_number():
    rows = datasets.Dataset.from_dict(
        {"id_str": [1, 2], "image": [{"bytes": b"x", "path": None}] * 2, "ring_yes": [1, 2], "ring_no": [1, 2]}
    )
    rows = rows.cast_column("image", datasets.Image())
    with pytest.raises(BadInput, match="id_str 2: its picture cannot be decoded"):
        Galaxies(rows, Framing(32), Votes(TREE))[[1, 0]]


@pytest.mark.parametrize("streaming", [False, True], ids=["copied", "streamed"])
@pytest.mark.parametrize("content", [b"no picture", jpeg_bytes()[:900], None], ids=["text", "truncated", "none"])
def test_a_picture_that_cannot_be_decoded_is_named_also_in_a_part_of_a_split(tmp_path, streaming, content):
    """By its name: the number of a row among those that were chosen would lead to another galaxy."""
    whole = [Rows(12).row(i).columns for i in range(12)]
    whole[7]["image"] = {"bytes": content, "path": "gone.jpg"}
    (tmp_path / "data").mkdir()
    schema = Rows.features.arrow_schema
    whole = [row | {"kind": None} for row in whole]
    pq.write_table(pa.Table.from_pylist(whole, schema=schema), tmp_path / "data/test.parquet")
    rows = open_dataset(str(tmp_path), streaming=streaming)["test"].select(np.arange(5, 12))
    for keyed in (False, True):
        with pytest.raises(
            BadInput, match=rf"^--dataset {tmp_path}, id_str galaxy-7: its picture cannot be decoded \("
        ):
            Galaxies(rows, Framing(32), Votes(TREE), keyed=keyed)[[0, 6, 2, 1]]
        assert len(Galaxies(rows, Framing(32), Votes(TREE), keyed=keyed)[[0, 6, 1]]["pixels"]) == 3


def test_a_batch_of_several_sizes_is_a_list():
    pictures = decode_batch([encoded(NOISE), encoded(NOISE[:50])])
    assert [picture.shape for picture in pictures] == [(90, 123, 3), (50, 123, 3)]


def test_each_epoch_sees_every_galaxy_once_in_another_order(opened):
    sequence = TrainingSequence(galaxies_of(opened, Votes(TREE)), seed=0)
    n = len(sequence.galaxies)
    epochs = [[sequence.row(p) for p in range(e * n, (e + 1) * n)] for e in range(3)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [sequence.row(p) for p in range(n)] == epochs[0], "looking back gives the same"


def test_by_default_workers_do_not_take_the_cores_of_a_small_cpu(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(32)), raising=False)
    for threads, expected in ((1, 0), (2, 0), (16, 8)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        assert (default_workers(cpu), default_workers(cuda)) == (expected, 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {7}, raising=False)
    assert default_workers(cuda) == 1


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_shares_of_a_batch_make_up_the_whole_batch(folder, processes, accumulate):
    sequence = TrainingSequence(galaxies_of(open_dataset(str(folder)), Votes(TREE)), seed=0)
    whole = list(training_batches(sequence, 16, range(3, 5), ProcessShard(), workers=0))
    shares = [
        list(training_batches(sequence, 16, range(3, 5), ProcessShard(rank, processes, accumulate), workers=1))
        for rank in range(processes)
    ]
    assert all(len(share) == 2 * accumulate for share in shares)
    for step in range(2):
        parts = [shares[r][step * accumulate + a] for a in range(accumulate) for r in range(processes)]
        for name in ("pixels", "affine", "votes"):
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[step][name])
    with pytest.raises(BadInput, match="not divisible"):
        ProcessShard(0, 2, 2).micro_batch(15)


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (4, 1), (2, 2)])
def test_a_shuffle_that_no_batch_and_no_process_divides_has_every_galaxy_once(folder, processes, accumulate):
    galaxies = galaxies_of(open_dataset(str(folder)), Votes(TREE))
    n, batch_size = len(galaxies), 12
    assert n % batch_size
    assert processes == 1 or n % processes
    seen = []
    for step in range(-(-2 * n // batch_size)):
        of_rank = [
            training_batches(TrainingSequence(galaxies, 0), batch_size, range(step, step + 1), share, workers=0)
            for share in (ProcessShard(rank, processes, accumulate) for rank in range(processes))
        ]
        for micro_batches in zip(*of_rank, strict=True):
            seen += [votes for batch in micro_batches for votes in map(tuple, batch["votes"].tolist())]
    everything = sorted(map(tuple, votes_of(open_dataset(str(folder))["train"], TREE).tolist()))
    assert sorted(seen[:n]) == sorted(seen[n : 2 * n]) == everything
    assert seen[:n] != seen[n : 2 * n]


class Numbers(Dataset):
    """In place of galaxies, their numbers."""

    def __init__(self, count):
        self.count, self.rows = count, None

    def __len__(self):
        return self.count

    def __getitem__(self, indices):
        return {"votes": torch.tensor(indices)}


def test_in_evaluation_every_galaxy_is_in_one_batch_and_processes_have_as_many_batches():
    for count, processes, batch_size in itertools.product(
        (1, 2, 3, 7, 8, 9, 31, 64, 65), (1, 2, 3, 8), (1, 2, 3, 8, 100)
    ):
        of_rank = [
            [
                batch["votes"].tolist()
                for batch in evaluation_batches(Numbers(count), batch_size, ProcessShard(rank, processes), 0)
            ]
            for rank in range(processes)
        ]
        assert [i for batches in of_rank for batch in batches for i in batch] == list(range(count))
        lengths = [len(batch) for batches in of_rank for batch in batches]
        assert min(lengths) > 0
        uneven = batch_size == 1 and count % processes
        assert max(lengths) <= (2 if uneven else batch_size)
        assert max(lengths) - min(lengths) <= 1, "nearly equal, or the last would waste its turn"
        if count >= processes:
            assert len({len(batches) for batches in of_rank}) == 1
            assert len(of_rank[0]) == (
                max(1, count // processes) if uneven else math.ceil(math.ceil(count / processes) / batch_size)
            )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_sees_every_galaxy_once(opened, processes):
    galaxies = galaxies_of(opened, Votes(TREE), "test")
    seen = [
        tuple(votes.tolist())
        for rank in range(processes)
        for batch in evaluation_batches(galaxies, 16, ProcessShard(rank, processes), workers=0)
        for votes in batch["votes"]
    ]
    assert sorted(seen) == sorted(map(tuple, votes_of(opened["test"], TREE).tolist()))


def test_the_working_directory_is_a_dataset_by_its_dot(mock_dataset, monkeypatch):
    monkeypatch.chdir(mock_dataset)
    for streaming in (False, True):
        here, there = (open_dataset(name, streaming=streaming) for name in (".", str(mock_dataset)))
        assert {split: len(rows) for split, rows in here.items()} == {split: len(rows) for split, rows in there.items()}


def test_hidden_parquet_files_are_no_dataset(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/part-0.parquet").touch()
    assert not holds_parquet(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").touch()
    assert holds_parquet(tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_that_is_not_there_is_missed_as_a_folder_too(streaming):
    with pytest.raises(BadInput, match=r"; nor is there a folder data/nope here$"):
        open_dataset("data/nope", streaming=streaming)
