"""Figures: nothing overlaps, nothing is missing, and the pixels say what the numbers say."""

import io
import json
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

from hf_galaxy.decision_tree import TREES, DecisionTree, Question, available_trees, load_tree
from hf_galaxy.publishing.tree_drawing import BAR, PAD, TEXT, TITLE, describe_tree, draw_tree, draw_trees, lay_out

CAMPAIGNS = [name for name in available_trees() if len(load_tree(name).campaigns) == 1]


def made_up_tree(seed):
    """Any depth, any number of roots and of parents, and names of any length."""
    rng, questions = np.random.default_rng(seed), []
    for i in range(rng.integers(1, 15)):
        columns = [column for question in questions for column in question.columns]
        parents = rng.choice(columns, min(len(columns), rng.choice([0, 1, 1, 1, 2, 9])), replace=False) if i else []
        name = f"q{i}" + "-or-something-longer" * rng.integers(3) + "W" * rng.integers(20)
        answers = tuple(str(k) + "abc-" * rng.integers(9) for k in range(rng.integers(2, 8)))
        questions.append(Question(name, answers, tuple(map(str, parents)), "x"))
    return DecisionTree(f"made-up-{seed}", tuple(questions))


TREES_TO_DRAW = [load_tree(name) for name in CAMPAIGNS] + [made_up_tree(seed) for seed in (0, 1, 2, 7, 13, 136)]
every_tree = pytest.mark.parametrize("tree", TREES_TO_DRAW, ids=lambda tree: tree.name)
with_and_without_votes = pytest.mark.parametrize("counted", [False, True], ids=["tree", "votes"])


def random_votes(tree, counted=True):
    rng = np.random.default_rng(0)
    return {column: int(rng.integers(0, 4_000_000)) for column in tree.columns} if counted else None


def opened(png):
    return Image.open(io.BytesIO(png))


def apart(a, b):
    return a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y + 1e-9 or b.y + b.height <= a.y + 1e-9


@every_tree
@with_and_without_votes
def test_boxes_are_apart_and_inside_the_picture_and_hold_every_answer(tree, counted):
    layout = lay_out(tree, random_votes(tree, counted))
    boxes = layout.boxes
    assert [column for q in range(len(boxes)) for column in (row.column for row in boxes[q].rows)] == tree.columns
    for box in boxes.values():
        x, y, width, height = box.rect
        assert min(x, y) > 0
        assert x + width < layout.width
        assert y + height < layout.height
        parts = [box.header, *box.row_rects]
        assert all(apart(a, b) for a, b in combinations(parts, 2))
        assert all(y <= part.y and part.y + part.height <= y + height for part in parts)
    assert all(apart(a.rect, b.rect) for a, b in combinations(boxes.values(), 2))


@every_tree
@with_and_without_votes
def test_texts_fit(tree, counted):
    folder = Path(matplotlib.get_data_path(), "fonts/ttf")
    bold, plain = (
        ImageFont.truetype(folder / f"{name}.ttf", 100).getlength for name in ("DejaVuSans-Bold", "DejaVuSans")
    )
    for box in lay_out(tree, random_votes(tree, counted)).boxes.values():
        room = box.width - 2 * PAD + 1
        assert "".join(box.title) in tree.questions[box.question].name
        assert max(bold(line) for line in box.title) * TITLE / 100 <= room
        assert all(plain(line) * TEXT / 100 <= room for line in box.total)
        for row in box.rows:
            share = plain("100%") + 40 if row.share is not None else 0
            assert row.column.endswith("_" + "".join(row.lines))
            assert (max(map(plain, row.lines)) + share) * TEXT / 100 <= room


@every_tree
@with_and_without_votes
def test_every_parent_has_its_line_and_no_line_its_like(tree, counted):
    layout = lay_out(tree, random_votes(tree, counted))
    drawn = {(answer, q) for wire in layout.wires for answer in wire.answers for q in wire.targets}
    assert drawn == {(parent, q) for q, question in enumerate(tree.questions) for parent in question.parents}

    for wire in layout.wires:
        box = layout.boxes[wire.question]
        starts = [
            (rect.x + rect.width, rect.y + rect.height / 2)
            for row, rect in zip(box.rows, box.row_rects, strict=True)
            if row.column in wire.answers
        ]
        assert set(starts) <= set(wire.dots)
        # The segments hang together, and with them the answers and the boxes they lead to.
        reached, waiting = [], [*wire.segments]
        points = starts[:1]
        while touching := [
            s for s in waiting if any(touches(s, p) for p in points) or any(meet(s, r) for r in reached)
        ]:
            reached += touching
            waiting = [s for s in waiting if s not in touching]
        assert not waiting
        assert all(any(touches(s, start) for s in reached) for start in starts)
        assert len(wire.heads) == len(wire.targets)
        for target in wire.targets:
            rect = layout.boxes[target].rect
            heads = [(x, y) for x, y in wire.heads if x == rect.x and rect.y < y < rect.y + rect.height]
            assert len(heads) == 1
            assert any(touches(s, (heads[0][0] - 5, heads[0][1])) for s in reached)

    for wire in layout.wires:
        for (x0, y0), (x1, y1) in wire.segments:
            assert 0 < min(y0, y1) <= max(y0, y1) < layout.height
            for x, y, width, height in (box.rect for box in layout.boxes.values()):
                outside = max(x0, x1) <= x + 0.1 or min(x0, x1) >= x + width - 0.1
                assert outside or max(y0, y1) <= y or min(y0, y1) >= y + height
    for one, other in combinations(layout.wires, 2):
        assert not any(upon(s, t) for s in one.segments for t in other.segments)


def touches(segment, point):
    (x0, y0), (x1, y1) = segment
    return min(x0, x1) - 0.1 <= point[0] <= max(x0, x1) + 0.1 and min(y0, y1) <= point[1] <= max(y0, y1)


def meet(one, other):
    return any(touches(one, end) for end in other) or any(touches(other, end) for end in one)


def upon(one, other):
    """Two parallel segments that share more than a point."""
    for k in (0, 1):
        if len({end[k] for end in one + other}) == 1:
            low, high = zip(*(sorted(end[1 - k] for end in each) for each in (one, other)), strict=True)
            return max(low) < min(high)
    return False


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_campaigns_are_drawn_large_enough_and_by_their_names(name):
    tree = load_tree(name)
    layout = lay_out(tree, random_votes(tree))
    assert layout.width == 800
    suffix = json.loads((TREES / f"{name}.json").read_text())["suffix"]
    assert ["".join(box.title) + suffix for box in layout.boxes.values()] == [q.name for q in tree.questions]


@every_tree
def test_every_tree_is_drawn(tree):
    layout = lay_out(tree)
    picture = opened(draw_tree(tree))
    assert picture.size == (1600, round(layout.height * 1600 / layout.width))
    assert not picture.info
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert pixels.min() < 10


def test_same_input_same_bytes():
    tree = load_tree("gz2")
    assert draw_tree(tree, random_votes(tree)) == draw_tree(tree, random_votes(tree)) != draw_tree(tree)


def test_bars_are_the_shares():
    tree = load_tree("gz_rings")
    votes = {"ring_yes": 250, "ring_no": 750}
    box = lay_out(tree, votes).boxes[0]
    assert [row.share for row in box.rows] == [0.25, 0.75]
    assert box.total == ("1,000 votes",)
    pixels = np.asarray(opened(draw_tree(tree, votes)).convert("RGB")).astype(int)
    bar = np.abs(pixels - [int(BAR[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=2) < 8
    for row, rect in zip(box.rows, box.row_rects, strict=True):
        # Just below the line between the rows, where there is no text.
        assert bar[int(2 * rect.y) + 3].sum() == pytest.approx(2 * rect.width * row.share, abs=3)


@every_tree
def test_shares_add_up(tree):
    for box in lay_out(tree, random_votes(tree)).boxes.values():
        assert sum(row.share for row in box.rows) == pytest.approx(1)


def test_a_question_without_votes_has_no_bars():
    tree = load_tree("gz_rings")
    votes = dict.fromkeys(tree.columns, 0)
    box = lay_out(tree, votes).boxes[0]
    assert box.total == ("0 votes",)
    assert [row.share for row in box.rows] == [None, None]
    draw_tree(tree, votes)


def test_each_campaign_of_a_bundle_is_drawn_by_itself():
    bundle = load_tree(["gz_rings", "gz2"])
    votes = random_votes(bundle)
    assert draw_trees(bundle, votes) == {name: draw_tree(load_tree(name), votes) for name in ("gz_rings", "gz2")}


def test_a_tree_in_words():
    assert describe_tree(load_tree("gz_rings")) == "ring: yes; no"
    assert describe_tree(load_tree("gz_decals_dr12")).splitlines() == [
        "smooth-or-featured: smooth -> how-rounded, merging; featured-or-disk -> disk-edge-on, merging; artifact",
        "  how-rounded: completely; in-between; cigar-shaped",
        "  merging: neither; tidal-debris; both; merger",
        "  disk-edge-on: yes -> edge-on-bulge; no -> has-spiral-arms, bar, bulge-size",
        "    edge-on-bulge: boxy; none; rounded",
        "    has-spiral-arms: yes -> spiral-winding, spiral-arm-count; no",
        "      spiral-winding: tight; medium; loose",
        "      spiral-arm-count: 1; 2; 3; 4; more-than-4",
        "    bar: yes; no",
        "    bulge-size: dominant; obvious; none",
    ]
