"""Galaxies in two datasets are found, however their pictures are framed, and no others; each step is checked by another way to it."""

import io
import runpy
import sys

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from hf_galaxy.publishing import overlap
from hf_galaxy.publishing.mock_pictures import draw
from hf_galaxy.publishing.overlap import Listing, same_names, same_pictures, same_positions, similarities
from hf_galaxy.publishing.simulate import CAMPAIGNS, draw_morphology
from tests.conftest import ROOT

TWINS = 10  # galaxies 0 to 9 of either dataset; the others are in one of them only


def encoded(picture, form="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def middle(picture, share, right=0, down=0):
    side = round(share * picture.width)
    left, top = (picture.width - side) // 2 + right, (picture.height - side) // 2 + down
    return picture.crop((left, top, left + side, top + side))


def widened(picture, width):
    wide = Image.new("RGB", (width, picture.height))
    wide.paste(picture, ((width - picture.width) // 2, 0))
    return wide


FRAMED = [
    lambda p: encoded(p, "PNG"),
    lambda p: encoded(p, quality=75),
    lambda p: encoded(p.convert("L"), quality=90),
    lambda p: encoded(middle(p, 0.6).resize((88, 88), Image.Resampling.BICUBIC), quality=95),
    lambda p: encoded(middle(p, 0.41), quality=90),
    lambda p: encoded(middle(p, 0.77, 3, -2), quality=90),  # not quite in the centre
    lambda p: encoded(p.resize((90, 90), Image.Resampling.BICUBIC), quality=90),
    lambda p: encoded(p.resize((333, 333), Image.Resampling.BICUBIC), quality=90),
    lambda p: encoded(widened(p, 300), quality=90),
    lambda p: encoded(middle(p, 0.9).convert("P"), "PNG"),
]


def written(folder, pictures, names, splits=("train", "validation", "test"), **columns):
    """Galaxies dealt out to the splits in turn, so that they are listed in another order than given."""
    rows = {"id_str": names, "image": [{"bytes": p, "path": None} for p in pictures]} | columns
    features = {"id_str": datasets.Value("string"), "image": datasets.Image()}
    features |= {name: datasets.Value("string" if type(of[0]) is str else "float64") for name, of in columns.items()}
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    for k, split in enumerate(splits):
        whole.select(range(k, len(names), len(splits))).to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return [
        Image.open(io.BytesIO(draw(draw_morphology(rng), CAMPAIGNS[i % 2].imaging, 200, rng))).convert("RGB")
        for i in range(42)
    ]


@pytest.fixture(scope="module")
def both(drawn, tmp_path_factory):
    """24 galaxies, and 28 of which the first ten are theirs too, in other pictures; twins stand at the same numbers."""
    folder = tmp_path_factory.mktemp("overlap")
    for name in ("ours", "theirs"):
        (folder / name / "data").mkdir(parents=True)
    others = [
        written(folder / "ours", [encoded(p, quality=95) for p in drawn[:24]], [f"a{i}" for i in range(24)]),
        written(
            folder / "theirs",
            [frame(p) for frame, p in zip(FRAMED, drawn, strict=False)] + [encoded(p, quality=95) for p in drawn[24:]],
            [f"b{i}" for i in range(28)],
        ),
    ]
    return others


def named(pairs, ours, theirs):
    return {(ours.ids[i], theirs.ids[j]) for i, j in pairs}


def test_the_same_pictures_are_found_in_any_frame_and_no_others(both, monkeypatch):
    monkeypatch.setattr(overlap, "BLOCK", 8)  # several blocks of each, and several of pairs
    ours, theirs = map(Listing, both)
    pairs, similar = same_pictures(ours, theirs)
    assert named(pairs, ours, theirs) == {(f"a{i}", f"b{i}") for i in range(TWINS)}
    assert similar.min() > 0.88

    every = np.stack(np.meshgrid(range(len(ours)), range(len(theirs)), indexing="ij"), axis=-1).reshape(-1, 2)
    alike = similarities(ours, theirs, every)  # what the rough comparison passed over
    assert set(map(tuple, every[alike > overlap.MIN_SIMILARITY].tolist())) == set(map(tuple, pairs.tolist()))
    assert np.sort(alike)[-TWINS - 1] < 0.7
    backwards, again = same_pictures(theirs, ours)
    assert {(i, j) for j, i in backwards.tolist()} == set(map(tuple, pairs.tolist()))
    np.testing.assert_allclose(np.sort(again), np.sort(similar), atol=1e-3)


def test_scales_limit_the_frames(both):
    ours, theirs = map(Listing, both)
    pairs, _ = same_pictures(ours, theirs, scales=(1, 1))
    assert named(pairs, ours, theirs) == {(f"a{i}", f"b{i}") for i in (0, 1, 2, 6, 7, 8)}
    pairs, _ = same_pictures(theirs, ours, scales=(1.5, 3))  # ours show the wider field
    assert named(pairs, theirs, ours) == {("b3", "a3"), ("b4", "a4")}


def test_what_shows_nothing_is_like_nothing(drawn, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "data").mkdir(parents=True)
    rng = np.random.default_rng(1)
    noise = [Image.fromarray(rng.integers(0, 99, (64, 64), dtype=np.uint8)) for _ in range(2)]
    little = [encoded(p.resize((16, 16), Image.Resampling.BICUBIC), "PNG") for p in drawn[:3]]
    bad = [b"no picture", b"", encoded(Image.fromarray(np.ones((30, 30), np.uint16)), "PNG")]
    flat = [encoded(Image.new("RGB", (60, 60), colour), "PNG") for colour in ("black", "grey")]
    pictures = [*little, *bad, *flat, encoded(drawn[0]), encoded(noise[0])]
    names = [f"g{i}" for i in range(len(pictures))]
    one = Listing(written(tmp_path / "one", pictures, names, splits=("train",)))
    other = Listing(
        written(tmp_path / "other", [*pictures[:8], encoded(drawn[9]), encoded(noise[1])], names, splits=("train",))
    )
    assert len(same_pictures(one, other)[0]) == 0
    assert {one.ids[i] for i in one.unreadable} == {"g3", "g4", "g5"}
    assert one.ids == other.ids
    similar = similarities(one, other, np.array([[i, i] for i in range(len(pictures))]))
    assert np.isfinite(similar).all()
    assert not similar[[i for i, name in enumerate(one.ids) if name not in ("g8", "g9")]].any()
    assert len(similarities(one, other, np.empty((0, 2), int))) == 0


def test_a_cut_is_what_pillow_scales():
    squares = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 192, 192)).astype(np.float32))
    for share, pixels in ((0.6, 48), (0.6, 16), (0.31, 48), (0.2, 48)):
        edge = 96 * (1 - share)
        for square, cut in zip(squares.numpy(), overlap._cut(squares, share, pixels), strict=True):
            box = (edge, edge, 192 - edge, 192 - edge)
            expected = Image.fromarray(square).resize((pixels, pixels), Image.Resampling.BILINEAR, box=box)
            # Pillow looks at no more than the box: at its edge it has fewer pixels to average.
            np.testing.assert_allclose(cut.numpy()[1:-1, 1:-1], np.asarray(expected)[1:-1, 1:-1], atol=0.02)


def test_fine_structure_is_as_its_definition_says():
    squares = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 192, 192), dtype=np.uint8))

    def blurred(map, sigma):
        smooth = [gaussian_filter(x, sigma, mode="constant", truncate=60) for x in (map, np.ones_like(map))]
        return smooth[0] / smooth[1]  # beyond the edge there is nothing to average

    for square, structure in zip(squares, overlap._structure(squares, 0.5), strict=True):
        bright = np.arcsinh(overlap._cut(square[None].float(), 0.5, 48)[0].double().numpy() / 10)
        detail = blurred(bright, 0.7) - blurred(bright, 2)
        detail /= np.sqrt(blurred(detail**2, 3)) + 0.01
        detail -= detail.mean()
        np.testing.assert_allclose(structure.numpy(), detail / np.linalg.norm(detail), atol=1e-5)


def test_shifts_are_those_of_all_rolled_maps():
    x, y = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, 48, 48)).astype(np.float32))
    y[0], y[1], y[2] = torch.roll(x[0], (3, -2), (0, 1)), torch.roll(x[1], (-3, 0), (0, 1)), torch.roll(x[2], 4, 0)
    moved = [torch.roll(y, (a, b), (1, 2)) for a in range(-3, 4) for b in range(-3, 4)]
    expected = torch.stack([(x * m).sum((1, 2)) for m in moved]).amax(0)
    torch.testing.assert_close(overlap._shifted(x, y, 1), expected, rtol=1e-3, atol=1e-2)


def test_half_a_pixel_beside_each_other_is_tried_too():
    rng = np.random.default_rng(0)
    fine = torch.from_numpy(
        gaussian_filter(rng.standard_normal((3, 96, 96)), (0, 3, 3), mode="wrap").astype(np.float32)
    )
    x, y = fine[:, ::2, ::2], torch.roll(fine, (3, -5), (1, 2))[:, ::2, ::2]  # 1.5 and 2.5 pixels
    expected = (fine**2).sum((1, 2)) / 4
    torch.testing.assert_close(overlap._shifted(x, y, 2), expected, rtol=1e-2, atol=0)
    assert (overlap._shifted(x, y, 1) < 0.97 * expected).all()


def test_ratios_hold_both_ends_and_leave_no_gap():
    for scales in ((1 / 3, 3), (1, 1), (0.9, 1.7)):
        ratios = np.array(overlap._ratios(scales))
        np.testing.assert_allclose(ratios[[0, -1]], scales)
        assert (ratios[1:] / ratios[:-1] <= overlap.STEP + 1e-9).all()


@pytest.fixture
def catalogues(tmp_path):
    """Two datasets without a picture in common: names, names in another catalogue, and places in the sky."""
    for name in ("one", "other"):
        (tmp_path / name / "data").mkdir(parents=True)
    blank = [encoded(Image.new("L", (40, 40), 9), "PNG")] * 4
    one = written(tmp_path / "one", blank, ["007", "b", "c", "d"], ra=[10.0, 20, 30, np.nan], dec=[0.0, 0, 0, 1])
    other = written(
        tmp_path / "other", blank, ["7", "b", "e", "f"], twin=["c", "x", "", "007"],
        ra=[20.003, 10.01, 30 + 15 / 3600, np.nan], dec=[0.0, 0, 0, 1],
    )  # fmt: skip
    return one, other


def test_names_of_any_kind_are_compared_as_texts(catalogues):
    one, other = Listing(catalogues[0]), Listing(catalogues[1])
    assert named(same_names(one, other), one, other) == {("b", "b")}
    one, other = (Listing(name, name_columns=["twin"]) for name in catalogues)
    assert named(same_names(one, other), one, other) == {("b", "b"), ("c", "7"), ("007", "f")}
    assert {(other.ids[j], one.ids[i]) for j, i in same_names(other, one)} == {("b", "b"), ("7", "c"), ("f", "007")}


def test_places_are_compared_across_datasets_only(catalogues, both):
    one, other = map(Listing, catalogues)  # 10.8, 36 and 15 arcsec apart
    assert named(same_positions(one, other), one, other) == {("b", "7"), ("c", "e")}
    assert named(same_positions(one, other, 40), one, other) == {("b", "7"), ("c", "e"), ("007", "b")}
    assert len(same_positions(one, Listing(both[0]))) == 0
    assert len(same_positions(one, one)) == 3


def called(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["find_overlap", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts/find_overlap.py"), run_name="__main__")


def test_the_script_writes_every_pair_once_and_says_how_it_was_found(catalogues, monkeypatch, capsys, tmp_path):
    one, other = catalogues
    out = tmp_path / "overlap.csv"
    called(monkeypatch, "--datasets", one, "--against", other, "--also", "twin", "--out", out)
    said = capsys.readouterr().out
    assert (
        f"{one} and {other}: 5 pairs, 3 by name, 2 by position, 0 by picture; 3 of those by name have different pictures"
        in said
    )
    assert f"{out}: 3 of the 4 galaxies of {one}" in said
    table = pd.read_csv(out, dtype=str)
    assert list(table.columns) == [
        "dataset", "id_str", "split", "other_dataset", "other_id_str", "other_split", "how", "similarity"
    ]  # fmt: skip
    rows = {tuple(row) for row in table[["id_str", "split", "other_id_str", "other_split", "how"]].to_numpy().tolist()}
    assert rows == {
        ("007", "train", "f", "train", "name"),
        ("b", "validation", "b", "validation", "name"),
        ("b", "validation", "7", "train", "position"),
        ("c", "test", "7", "train", "name"),
        ("c", "test", "e", "test", "position"),
    }
    assert set(table["dataset"]) == {one}
    assert set(table["similarity"]) == {"0.000"}
    called(monkeypatch, "--datasets", one, "--against", other, "--no-pictures", "--out", tmp_path / "quick.csv")
    quick = pd.read_csv(tmp_path / "quick.csv", dtype=str)
    assert len(quick) == 3
    assert quick["similarity"].isna().all()


@pytest.mark.parametrize("pictures", [True, False])
def test_a_dataset_without_galaxies_is_in_no_other(catalogues, tmp_path, pictures):
    (tmp_path / "none/data").mkdir(parents=True)
    none = Listing(written(tmp_path / "none", [], [], splits=("test",)))
    other = Listing(catalogues[0])
    whole = overlap.overlap(other, other, pictures=False)
    for pair in ((none, other), (other, none), (none, none)):
        found = overlap.overlap(*pair, pictures=pictures)
        assert (len(found), list(found.columns)) == (0, list(whole.columns))


def test_a_pair_found_twice_says_so(both, monkeypatch, capsys, tmp_path):
    called(monkeypatch, "--datasets", both[0], "--against", both[1], "--out", tmp_path / "overlap.csv")
    table = pd.read_csv(tmp_path / "overlap.csv")
    assert set(table["how"]) == {"picture"}
    assert sorted(table["id_str"]) == sorted(f"a{i}" for i in range(TWINS))
    assert f"{TWINS} of the 24 galaxies of {both[0]}" in capsys.readouterr().out


def test_that_nothing_is_in_both_is_said_too(catalogues, both, monkeypatch, capsys, tmp_path):
    out = tmp_path / "overlap.csv"
    called(monkeypatch, "--datasets", both[0], *catalogues, "--against", both[1], "--scales", "3", "3", "--out", out)
    assert (
        f"{catalogues[0]} and {both[1]}: 0 pairs, 0 by name, 0 by position, 0 by picture\n" in capsys.readouterr().out
    )
    assert len(pd.read_csv(out)["id_str"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--also", "kaggle"), "--also kaggle: no dataset has such a column"),
        (("--scales", "3", "1"), "--scales 3 1: must be the smallest"),
        (("--arcsec", "0"), "--arcsec must be above 0"),
        (("--alike", "1"), "--alike in"),
        (("--against", "{one}"), "is also one of --datasets"),
        (("--against", "nowhere"), "--dataset nowhere: "),
        (("--out", "{one}"), "exists already"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, catalogues, monkeypatch, tmp_path):
    one, other = catalogues
    given = [
        "--datasets",
        one,
        "--against",
        other,
        "--out",
        tmp_path / "o.csv",
        *(a.format(one=one) for a in arguments),
    ]
    with pytest.raises(SystemExit) as stopped:
        called(monkeypatch, *given)
    assert str(stopped.value.code).startswith("error: ")
    assert message in stopped.value.code
    assert not (tmp_path / "o.csv").exists()
