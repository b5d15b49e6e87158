"""Any kind of picture, from wherever it comes, is seen as in evaluation, and the pipeline says what the model does."""

import gzip
import io
import json
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from astropy.io import fits
from datasets import load_dataset
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_galaxy import GalaxyConfig, GalaxyForImageClassification, GalaxyForVotes, load_tree
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.pictures import Rendering
from hf_galaxy.data.pixels import pixels_of
from hf_galaxy.data.views import eval_view, to_canvases
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.models.morphology import morphology
from hf_galaxy.training.targets.votes import Votes
from tests.galaxies import Rows, jpeg_bytes, published

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
FLUX = (RNG.normal(0, 1, (40, 60)) + 300 * np.exp(-np.hypot(*np.mgrid[-20:20, -25:35]) / 4)).astype(np.float32)
COUNTS = (100 + 100 * (FLUX - FLUX.min())).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two campaigns, not trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "votes"
    config = GalaxyConfig(backbone="test_convnext", tree=["gz2", "gz_candels"], image_size=32, crop=0.8)
    model = GalaxyForVotes(config)
    torch.nn.init.normal_(model.head.weight, std=0.3)  # so that galaxies differ
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("galaxy-morphology", model=folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A published dataset of JPEGs."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    folder.mkdir()
    published(Rows(60), folder)
    return folder


@pytest.fixture
def server(tmp_path):
    """The address of a server of the files in `tmp_path`; of /slow it never sends all."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(6000):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
                    if stopped.is_set():
                        return
            super().do_GET()

        def log_message(self, *_):
            pass

    stopped = threading.Event()
    server = ThreadingHTTPServer(("localhost", 0), partial(Handler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


def saved(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def fits_bytes(values):
    file = io.BytesIO()
    fits.PrimaryHDU(values).writeto(file)
    return file.getvalue()


def test_a_jpeg_is_seen_as_in_evaluation_to_the_bit(pipe, dataset, tmp_path):
    framing = pipe.model.config.framing
    rows = open_dataset(str(dataset), streaming=True)["test"]
    galaxies = Galaxies(rows, framing, Votes(load_tree("gz_rings")))
    expected = eval_view(galaxies[[0, 1]]["pixels"], framing)
    contents = rows.select_columns(["image"])[[0, 1]]["image"].combine_chunks().field("bytes").to_pylist()
    for content, view in zip(contents, expected, strict=True):
        (tmp_path / "a.jpg").write_bytes(content)
        for picture in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), content, Image.open(io.BytesIO(content))):
            assert torch.equal(pipe.preprocess(picture)["pixel_values"], view[None])
    with torch.no_grad():
        answers = pipe.model(pixel_values=expected)
    said = [
        morphology(f.numpy(), c.numpy(), pipe.model.tree, weights=w.numpy())
        for f, c, w in zip(answers.fractions, answers.concentrations, answers.weights, strict=True)
    ]
    alike(pipe([Image.open(io.BytesIO(content)) for content in contents], batch_size=2), said)
    assert said[0][0]["questions"][0]["answers"] != said[1][0]["questions"][0]["answers"]


def alike(ours, theirs):
    """Equal words, and numbers equal but for rounding."""
    if isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-4)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            alike(value, theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            alike(one, other)
    else:
        assert ours == theirs


def test_lists_generators_and_datasets_give_what_single_pictures_give(pipe, dataset):
    rows = load_dataset(str(dataset), split="test[:5]")
    single = [pipe(picture) for picture in rows["image"]]
    assert len({json.dumps(said) for said in single}) == 5
    for batch_size in (1, 2, 5):
        alike(pipe(list(rows["image"]), batch_size=batch_size), single)
        alike(list(pipe(KeyDataset(rows, "image"), batch_size=batch_size)), single)
        alike(list(pipe((picture for picture in rows["image"]), batch_size=batch_size)), single)


def test_what_is_said_can_be_written_as_json(pipe):
    said = pipe(COLOURS, volunteers=40, asked=0)
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert [each["campaign"] for each in said] == ["gz2", "gz_candels"]
    assert len(said[0]["questions"]) == 10


def test_options_hold_for_all_calls_or_for_one(pipe, folder):
    chosen = pipeline("galaxy-morphology", model=folder, campaign="gz_candels", credible=0.5)
    assert chosen(COLOURS) == pipe(COLOURS, campaign="gz_candels", credible=0.5)
    assert chosen(COLOURS, campaign="gz2") == pipe(COLOURS, campaign="gz2", credible=0.5)
    narrow, wide = (pipe(COLOURS, credible=c)[0]["questions"][0]["answers"][0]["interval"] for c in (0.5, 0.9))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    for wrong in ({"campaign": "gz3"}, {"asked": 2}, {"volunteers": 0}, {"rendering": Rendering(stretch="cubic")}):
        with pytest.raises(BadInput):
            pipe(COLOURS, **wrong)
        with pytest.raises(BadInput):
            pipeline("galaxy-morphology", model=folder, **wrong)
    with pytest.raises(BadInput, match="has no option threshold; its options are asked, "):
        pipe(COLOURS, threshold=0.5)


def test_a_multinomial_model_has_no_intervals(tmp_path):
    config = GalaxyConfig(backbone="test_convnext", tree="gz_rings", image_size=32, likelihood="multinomial")
    GalaxyForVotes(config).save_pretrained(tmp_path)
    for said in pipeline("galaxy-morphology", model=tmp_path)([COLOURS, COLOURS[::-1]], batch_size=2, volunteers=40):
        yes, no = said[0]["questions"][0]["answers"]
        assert yes["interval"] is no["votes_interval"] is None
        assert yes["votes"] + no["votes"] == pytest.approx(40)
        assert said[0]["description"] in ("a ring", "no ring")


def test_half_precision_is_possible(folder, pipe):
    half = pipeline("galaxy-morphology", model=folder, dtype=torch.bfloat16)
    ours, theirs = half(COLOURS, asked=1), pipe(COLOURS, asked=1)
    assert ours != theirs
    for one, other in zip(ours[0]["questions"][0]["answers"], theirs[0]["questions"][0]["answers"], strict=True):
        assert one["fraction"] == pytest.approx(other["fraction"], abs=0.05)


def over_black(rgba):
    """By hand, but for rounding."""
    return rgba[..., :3] * (rgba[..., 3:] / 255)


GREY = Image.fromarray(COLOURS).convert("L")
ALPHA = np.dstack([COLOURS, RNG.integers(0, 256, COLOURS.shape[:2], dtype=np.uint8)])
PALETTE = Image.fromarray(COLOURS).quantize(16)
SEE_THROUGH = GREY.copy()
SEE_THROUGH.info["transparency"] = int(np.asarray(GREY)[0, 0])


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(COLOURS), COLOURS),
        (GREY, np.dstack(3 * [GREY])),
        (Image.fromarray(ALPHA), over_black(ALPHA)),
        (PALETTE, np.asarray(PALETTE.convert("RGB"))),
        (GREY.convert("1"), np.dstack(3 * [np.asarray(GREY.convert("1")) * 255])),
        (GREY.convert("LA"), np.dstack(3 * [GREY])),
        (SEE_THROUGH, np.dstack(3 * [np.where(np.asarray(GREY) == np.asarray(GREY)[0, 0], 0, GREY)])),
    ],
    ids=["RGB", "L", "RGBA", "P", "1", "LA", "transparent L"],
)
def test_a_picture_of_any_mode_is_the_same_as_image_file_and_bytes(picture, expected, tmp_path):
    content = saved(picture)
    (tmp_path / "a.png").write_bytes(content)
    pixels = pixels_of(picture)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, expected, atol=1)
    for other in (content, tmp_path / "a.png", Image.open(io.BytesIO(content))):
        np.testing.assert_array_equal(pixels_of(other), pixels)


def test_printers_colours_come_out_right():
    printed = saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(printed)).convert("RGB"))
    np.testing.assert_array_equal(pixels_of(printed), expected)
    np.testing.assert_array_equal(pixels_of(Image.open(io.BytesIO(printed))), expected)
    np.testing.assert_allclose(pixels_of(Image.fromarray(COLOURS).convert("CMYK")), COLOURS, atol=1)


def test_16_bits_are_stretched_as_when_publishing(tmp_path):
    content = saved(Image.fromarray(COUNTS))
    expected = np.dstack(3 * [np.asarray(Rendering().open(content))])
    assert len(np.unique(expected)) > 100
    wide = Image.fromarray(COUNTS.astype(np.int32))
    for picture in (content, Image.open(io.BytesIO(content)), COUNTS, COUNTS[..., None], wide):
        np.testing.assert_array_equal(pixels_of(picture), expected)
    linear = Rendering(stretch="linear")
    np.testing.assert_array_equal(pixels_of(COUNTS, linear)[..., 0], np.asarray(linear.open(content)))


@pytest.mark.parametrize("values", [FLUX, np.stack([FLUX, 2 * FLUX, FLUX**2])], ids=["one band", "three bands"])
def test_fits_files_are_rendered_as_when_publishing(values, tmp_path, pipe):
    content = fits_bytes(values)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(content))
    for rendering in (Rendering(), Rendering(stretch="sqrt", rgb=(0, 1, 2))):
        expected = np.asarray(rendering.open(content).convert("RGB"))
        np.testing.assert_array_equal(pixels_of(content, rendering), expected)
        np.testing.assert_array_equal(pixels_of(tmp_path / "a.fits.gz", rendering), expected)
        framing = pipe.model.config.framing
        view = eval_view(to_canvases([expected], framing), framing)
        assert torch.equal(pipe.preprocess(content, rendering)["pixel_values"], view)
    assert pipe(tmp_path / "a.fits.gz", rendering=rendering) == pipe(expected)


def test_arrays_are_pixels_or_shares_of_white():
    grey = np.asarray(GREY)
    for values, expected in [
        (COLOURS, COLOURS),
        (grey, np.dstack(3 * [grey])),
        (grey[..., None], np.dstack(3 * [grey])),
        (COLOURS / 255, COLOURS),
        ((grey / 255).astype(np.float32), np.dstack(3 * [grey])),
        (np.asfortranarray(COLOURS[::-1, ::2]), COLOURS[::-1, ::2]),
    ]:
        np.testing.assert_array_equal(pixels_of(values), expected)
    np.testing.assert_array_equal(pixels_of(Image.fromarray((grey / 255).astype(np.float32))), np.dstack(3 * [grey]))


def test_a_url_is_downloaded(server, tmp_path, pipe):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    (tmp_path / "a.fits").write_bytes(fits_bytes(FLUX))
    for name in ("a.jpg", "a.fits"):
        assert pipe(f"{server}/{name}") == pipe(tmp_path / name)


def test_what_cannot_be_read_is_named(server, tmp_path, pipe):
    (tmp_path / "text.jpg").write_text("a text file")
    (tmp_path / "half.jpg").write_bytes(jpeg_bytes()[:2000])
    (tmp_path / "ppm.png").write_bytes(saved(GREY, "PPM"))
    for picture, message in [
        (
            tmp_path / "text.jpg",
            "text.jpg: cannot be read as a picture (is neither JPEG, PNG, WEBP, TIFF, GIF, BMP nor FITS)",
        ),
        (tmp_path / "half.jpg", "half.jpg: cannot be read as a picture (image file is truncated"),
        (tmp_path / "ppm.png", "ppm.png: cannot be read as a picture (is neither"),
        (tmp_path / "none.jpg", "none.jpg: cannot be read ([Errno 2] No such file"),
        (tmp_path, f"{tmp_path}: cannot be read ([Errno 21] Is a directory"),
        ("a\0b", "cannot be read (embedded null byte)"),
        (f"{server}/none.jpg", "none.jpg: cannot be downloaded (HTTP Error 404"),
        (f"{server}/text.jpg", f"{server}/text.jpg: cannot be read as a picture"),
        ("http://localhost:1/a.jpg", "cannot be downloaded (<urlopen error [Errno 111] Connection refused>)"),
        ("http://[", "http://[: cannot be downloaded ("),
        (b"text", "bytes: cannot be read as a picture"),
        (Image.open(io.BytesIO(jpeg_bytes()[:2000])), "cannot be read (image file is truncated"),
        (COLOURS.astype(np.int64), "an array (40, 60, 3) of int64 is not a picture"),
        (COLOURS.astype(np.uint16), "an array (40, 60, 3) of uint16 is not a picture"),
        (COLOURS[None], "an array of shape (1, 40, 60, 3) is not a picture"),
        (COLOURS[:0], "an array of shape (0, 60, 3) is not a picture"),
        (FLUX, "an array of floats must be from 0 (black) to 1 (white), and is from -"),
        (np.full((9, 9), np.nan), "and is from nan to nan"),
        ((COLOURS, COLOURS), "a tuple is not a picture; pass a path"),
        ({"image": COLOURS}, "a dict is not a picture"),
    ]:
        with pytest.raises(BadInput) as refused:
            pipe(picture)
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match=r"half\.jpg"):
        pipe([str(tmp_path / "half.jpg"), COLOURS], batch_size=2)


def test_a_download_that_takes_too_long_is_given_up(server, pipe):
    start = time.monotonic()
    with pytest.raises(BadInput, match=r"/slow: cannot be downloaded \(takes longer than 0\.3 s\)"):
        pipe(f"{server}/slow", timeout=0.3)
    assert time.monotonic() - start < 100, "the server would send for 300 s"


def test_a_model_of_classes_has_the_pipeline_of_transformers(tmp_path, dataset):
    torch.manual_seed(0)
    labels = {0: "spiral", 1: "elliptical", 2: "merger"}
    config = GalaxyConfig(
        backbone="test_convnext", image_size=32, crop=0.5, id2label=labels, label2id={n: i for i, n in labels.items()}
    )
    model = GalaxyForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    pictures = list(load_dataset(str(dataset), split="test[:3]")["image"])
    classify = pipeline("image-classification", model=str(tmp_path))
    views = eval_view(to_canvases([np.asarray(p) for p in pictures], config.framing), config.framing)
    with torch.no_grad():
        expected = model(pixel_values=views).logits.softmax(dim=1)
    for said, probabilities in zip(classify(pictures, batch_size=3), expected, strict=True):
        assert {each["label"] for each in said} == set(labels.values())
        for each in said:
            assert each["score"] == pytest.approx(float(probabilities[config.label2id[each["label"]]]), abs=1e-4)
    with pytest.raises(BadInput, match=r"a GalaxyForImageClassification is not.*image-classification"):
        pipeline("galaxy-morphology", model=tmp_path)
