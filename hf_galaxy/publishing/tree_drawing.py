"""A decision tree as a picture for a dataset card, with the share of votes of each answer as a bar.

`lay_out` computes the positions, `draw_tree` draws them; matplotlib is imported when it draws. Lengths are in pixels of a card
of 800 px, y downwards; the picture has twice as many. Everything is on a grid of ROW: lines leave a row at 0 or 1/2 of it,
pass a column at 1/4 or 3/4, and arrive at a box at 1/8 or 5/8, so that no two of them overlap.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, permutations, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from hf_galaxy.decision_tree import DecisionTree, Question
from hf_galaxy.reports.charts import LINES, PIXELS

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

WIDTH = 800  # of the card; only a tree that is too deep for it (more than 6 questions in a row) is drawn smaller
MARGIN, ROW, PAD = 6, 16, 5
TITLE, TEXT = 11, 10.5  # font sizes
BOX_MIN, BOX_MAX = 100, 190
LEAD, TRACK, HEAD = 3, 8, 8  # between two columns: beside the left boxes, one line, arrowhead
BAR, HEADER, EDGE, QUIET = "#9AD0F1", "#E6E6E6", "#555555", "#333333"


class Rect(NamedTuple):
    """Left, top, width and height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Row:
    """One answer: its column, its name in lines that fit, and its share of the question's votes (None: no votes)."""

    column: str
    lines: tuple[str, ...]
    share: float | None


@dataclass(frozen=True)
class Box:
    """One question. `total`: lines with its number of votes; `arrows`: number of wires that arrive."""

    question: int
    title: tuple[str, ...]
    total: tuple[str, ...]
    rows: tuple[Row, ...]
    arrows: int
    x: float
    width: float
    y: float = 0

    @property
    def header(self) -> Rect:
        return Rect(self.x, self.y, self.width, ROW * len(self.title + self.total))

    @property
    def row_rects(self) -> list[Rect]:
        rects, y = [], self.y + self.header.height
        for row in self.rows:
            rects.append(Rect(self.x, y, self.width, ROW * len(row.lines)))
            y += rects[-1].height
        return rects

    @property
    def rect(self) -> Rect:
        last = self.row_rects[-1]
        needed = -(-self.arrows // 2) * ROW
        return Rect(self.x, self.y, self.width, max(last.y + last.height - self.y, needed))

    @property
    def ports(self) -> list[float]:
        """Heights at which lines arrive at the left side, from top to bottom, around the middle of the header."""
        first = max(0, round((self.header.height / 2 - ROW / 8) / (ROW / 2) - (self.arrows - 1) / 2))
        first = min(first, int(self.rect.height / (ROW / 2)) - self.arrows)
        return [self.y + ROW / 8 + ROW / 2 * (first + i) for i in range(self.arrows)]


@dataclass(eq=False)
class Wire:
    """The lines from answers of one question to the questions that they lead to.

    Attributes:
        answers: columns of the answers in the tree.
        targets: indices of the questions.
        start, end: the columns of the drawing where it starts and ends.
        lanes: its height in each column in between.
        segments, heads, dots: the lines, the arrowheads, and the dots where it starts and where it forks.
    """

    question: int
    answers: tuple[str, ...]
    targets: tuple[int, ...]
    start: int
    end: int
    color: str
    lanes: dict[int, float] = field(default_factory=dict)
    segments: list[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    heads: list[tuple[float, float]] = field(default_factory=list)
    dots: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Positions of all parts of a drawing."""

    width: float
    height: float
    boxes: dict[int, Box]
    wires: list[Wire]


def draw_trees(tree: DecisionTree, votes: dict[str, int] | None = None) -> dict[str, bytes]:
    """One picture for each campaign of the tree; see `draw_tree`."""
    parts = {name: tuple(tree.questions[i] for i in indices) for name, indices in tree.campaigns.items()}
    return {name: draw_tree(DecisionTree(name, questions), votes) for name, questions in parts.items()}


def draw_tree(tree: DecisionTree, votes: dict[str, int] | None = None) -> bytes:
    """PNG of the questions of a campaign, from left to right.

    Args:
        votes: number of votes of each column, drawn as the share of each answer; None: only the tree.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Polygon, Rectangle

    layout = lay_out(tree, votes)
    scale, dpi = PIXELS / layout.width, 128  # a power of two, so that no pixel is lost in the division
    figure = Figure((PIXELS / dpi, round(layout.height * scale) / dpi), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.set_axis_off()
    points = scale * 72 / dpi

    def write(
        x: float, y: float, text: str, size: float = TEXT, bold: bool = False, align: str = "left", color: str = "black"
    ) -> None:
        axes.text(
            x, y + 0.36 * size, text, fontproperties=_font(bold), fontsize=size * points, color=color, ha=align,
            va="baseline", zorder=9, parse_math=False,
        )  # fmt: skip

    def rectangle(rect: Rect, zorder: float, **style: Any) -> None:
        axes.add_patch(Rectangle(rect[:2], *rect[2:], zorder=zorder, **style))

    for i, wire in enumerate(layout.wires):
        # The white line below the coloured one shows which of two crossing lines is on top.
        for color, thick, zorder in (("white", 3.2, 1 + i / 1000), (wire.color, 1.3, 1.0005 + i / 1000)):
            for start, end in wire.segments:
                axes.plot(*zip(start, end, strict=True), color=color, lw=thick * points, zorder=zorder,
                          solid_capstyle="projecting")  # fmt: skip
        for dot in wire.dots:
            axes.add_patch(Circle(dot, 2.4, color=wire.color, lw=0, zorder=7))
        for x, y in wire.heads:
            axes.add_patch(Polygon([(x, y), (x - 6, y - 3), (x - 6, y + 3)], color=wire.color, lw=0, zorder=7))

    for box in layout.boxes.values():
        rectangle(box.rect, 3, facecolor="white", lw=0)
        rectangle(box.header, 3, facecolor=HEADER, lw=0)
        rectangle(box.rect, 6, facecolor="none", edgecolor=EDGE, lw=0.8 * points)
        for i, line in enumerate(box.title):
            write(box.x + PAD, box.y + ROW * (i + 0.5), line, TITLE, bold=True)
        for i, line in enumerate(box.total, len(box.title)):
            write(box.x + PAD, box.y + ROW * (i + 0.5), line, color=QUIET)
        for row, rect in zip(box.rows, box.row_rects, strict=True):
            axes.plot([rect.x, rect.x + rect.width], [rect.y] * 2, color="#BBBBBB", lw=0.5 * points, zorder=5)
            for i, line in enumerate(row.lines):
                write(rect.x + PAD, rect.y + ROW * (i + 0.5), line)
            if row.share is not None:
                rectangle(rect._replace(width=rect.width * row.share), 4, facecolor=BAR, lw=0)
                write(rect.x + rect.width - PAD, rect.y + rect.height / 2, _percent(row.share), align="right")

    canvas.draw()
    file = io.BytesIO()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def describe_tree(tree: DecisionTree) -> str:
    """The tree as text, instead of the picture: one line for each question, indented under the first that leads to it."""
    names, lines = _short_names(tree), []
    described: set[int] = set()

    def describe(q: int, level: int) -> None:
        if q in described:
            return
        described.add(q)
        targets = _targets(tree, q)
        answers = [
            answer + (" -> " + ", ".join(names[t] for t in leads) if leads else "")
            for answer, leads in zip(tree.questions[q].answers, targets, strict=True)
        ]
        lines.append("  " * level + f"{names[q]}: {'; '.join(answers)}")
        for target in chain(*targets):
            describe(target, level + 1)

    for q, parents in enumerate(tree.parents):
        if not parents:
            describe(q, 0)
    return "\n".join(lines)


def lay_out(tree: DecisionTree, votes: dict[str, int] | None = None) -> Layout:
    """Positions of all parts: a question is right of all questions that lead to it, near their answers."""
    depths: dict[int, int] = {}
    for q in tree.order:
        depths[q] = max((depths[tree.question_of_answer[a]] + 1 for a in tree.parents[q]), default=0)
    wires = _wires(tree, depths)
    gaps = [[w for w in wires if w.start <= g < w.end] for g in range(max(depths.values()))]
    between = [LEAD + TRACK * (len(gap) + 1) + HEAD for gap in gaps]
    box_width = (WIDTH - 2 * MARGIN - sum(between)) / (len(gaps) + 1)
    box_width = min(max(box_width, BOX_MIN), BOX_MAX)
    used = box_width * (len(gaps) + 1) + sum(between)
    width = max(WIDTH, used + 2 * MARGIN)
    lefts = [(width - used) / 2 + box_width * d + sum(between[:d]) for d in range(len(gaps) + 1)]

    names = _short_names(tree)
    boxes: dict[int, Box] = {}
    for q, question in enumerate(tree.questions):
        arrows = sum(q in wire.targets for wire in wires)
        boxes[q] = _box(q, question, names[q], votes, arrows, lefts[depths[q]], box_width)
    columns: list[list[int | Wire]] = [
        [q for q in boxes if depths[q] == d] + [w for w in wires if w.start < d < w.end] for d in range(len(lefts))
    ]
    height = max(sum(_height(item, boxes) for item in column) for column in columns)
    for d, column in enumerate(columns):
        _stack(column, d, height, boxes, wires)
    for g, gap in enumerate(gaps):
        _route(gap, g, boxes, lefts[g] + box_width, lefts[g + 1], box_width)
    return Layout(width, height, boxes, wires)


def _wires(tree: DecisionTree, depths: dict[int, int]) -> list[Wire]:
    """One for all answers of a question that lead to the same questions, in another colour than its neighbours."""
    wires: list[Wire] = []
    for q, question in enumerate(tree.questions):
        together: dict[tuple[int, ...], list[str]] = {}
        for column, targets in zip(question.columns, _targets(tree, q), strict=True):
            together.setdefault(targets, []).append(column)
        together.pop((), None)
        for targets, answers in together.items():
            start, end = depths[q], max(depths[t] for t in targets)
            beside = {wire.color for wire in wires if wire.start < end and start < wire.end}
            color = next((c for c in LINES if c not in beside), LINES[len(wires) % len(LINES)])
            wires.append(Wire(q, tuple(answers), targets, start, end, color))
    return wires


def _box(
    q: int, question: Question, name: str, votes: dict[str, int] | None, arrows: int, x: float, width: float
) -> Box:
    total = sum(votes[c] for c in question.columns) if votes is not None else 0
    room = width - 2 * PAD
    label = room - (PAD + _text_width("100%", TEXT, False) if total else 0)
    rows = tuple(
        Row(column, _wrap(answer, label, TEXT, False), votes[column] / total if votes and total else None)
        for answer, column in zip(question.answers, question.columns, strict=True)
    )
    total_lines = () if votes is None else _wrap(f"{total:,} vote{'' if total == 1 else 's'}", room, TEXT, False)
    return Box(q, _wrap(name, room, TITLE, True), total_lines, rows, arrows, x, width)


def _height(item: int | Wire, boxes: dict[int, Box]) -> float:
    """Height of a box with half a row above and below it, or of a lane."""
    return ROW if isinstance(item, Wire) else boxes[item].rect.height + ROW


def _leaving(wire: Wire, column: int, boxes: dict[int, Box]) -> list[float]:
    """Heights at which a line leaves a column."""
    if column > wire.start:
        return [wire.lanes[column]]
    box = boxes[wire.question]
    return [r.y + r.height / 2 for row, r in zip(box.rows, box.row_rects, strict=True) if row.column in wire.answers]


def _stack(column: list[int | Wire], d: int, height: float, boxes: dict[int, Box], wires: list[Wire]) -> None:
    """Set the y of the boxes and lanes of column d: in the order of the origins of their lines, and close to these."""
    from sklearn.isotonic import isotonic_regression

    def wanted(item: int | Wire) -> float:
        feeding = [item] if isinstance(item, Wire) else [w for w in wires if item in w.targets]
        ys = [y for wire in feeding for y in _leaving(wire, d - 1, boxes)]
        return float(np.mean(ys)) if ys else height / 2

    centres = {item: wanted(item) for item in column}
    column = sorted(column, key=lambda item: centres[item])
    heights = np.array([_height(item, boxes) for item in column])
    above = np.cumsum(heights) - heights
    tops = [centres[item] - heights[i] / 2 - above[i] for i, item in enumerate(column)]
    # As close to the wanted positions as possible without overlap, by least squares.
    tops = isotonic_regression(tops, y_min=0, y_max=height - heights.sum())
    for item, top in zip(column, above + np.round(tops / ROW) * ROW, strict=True):
        if isinstance(item, Wire):
            item.lanes[d] = float(top) + ROW * (0.25 if d % 2 else 0.75)
        else:
            boxes[item] = replace(boxes[item], y=float(top) + ROW / 2)


def _route(gap: list[Wire], g: int, boxes: dict[int, Box], left: float, right: float, box_width: float) -> None:
    """Draw the lines from column g to the next: each has its own vertical, in the order with the fewest crossings."""
    leaving = {wire: _leaving(wire, g, boxes) for wire in gap}
    arriving_boxes = [box for box in boxes.values() if box.x == right and box.arrows]

    def arriving(order: Sequence[Wire]) -> dict[Wire, list[float]]:
        ys = {wire: [wire.lanes[g + 1]] if wire.end > g + 1 else [] for wire in order}
        for box in arriving_boxes:
            feeding = [wire for wire in order if box.question in wire.targets]
            above = [wire for wire in feeding if np.mean(leaving[wire]) <= box.ports[0]]
            below = [wire for wire in feeding if wire not in above]
            for wire, port in zip(above[::-1] + below, box.ports, strict=True):
                # Straight where the step would be too small to see; no other line is at the height of that row.
                near = [y for y in leaving[wire] if abs(y - port) <= ROW / 8 and y > box.y]
                ys[wire].append(near[0] if near else port)
        return ys

    def crossings(order: Sequence[Wire]) -> int:
        ys, count = arriving(order), 0
        for i, wire in enumerate(order):
            for j, other in enumerate(order):
                crossing = [] if i == j else leaving[wire] if j < i else ys[wire]
                ends = leaving[other] + ys[other]
                count += sum(min(ends) < y < max(ends) for y in crossing)
        return count

    orders: Iterable[Sequence[Wire]] = permutations(gap) if len(gap) <= 6 else [gap]
    order = min(orders, key=crossings)
    for i, (wire, ys) in enumerate(arriving(order).items()):
        x = left + LEAD + TRACK * (i + 1)
        ends = sorted({*leaving[wire], *ys})
        lane = wire.lanes.get(g + 1)
        wire.segments.append(((x, ends[0]), (x, ends[-1])))
        wire.segments += [((left, y), (x, y)) for y in leaving[wire]]
        wire.segments += [((x, y), (right + box_width if y == lane else right - 5, y)) for y in ys]
        wire.heads += [(right, y) for y in ys if y != lane]
        forks = [y for y in ends if ends[0] < y < ends[-1] or (y in leaving[wire] and y in ys and len(ends) > 1)]
        wire.dots += [(x, y) for y in forks] + [(left, y) for y in leaving[wire] if g == wire.start]


def _targets(tree: DecisionTree, q: int) -> list[tuple[int, ...]]:
    """For each answer of a question, the questions that it leads to."""
    answers = range(len(tree.columns))[tree.slices[q]]
    return [tuple(t for t, parents in enumerate(tree.parents) if a in parents) for a in answers]


def _short_names(tree: DecisionTree) -> list[str]:
    """The names of the questions without their common suffix, such as "-gz2"."""
    names = [question.name for question in tree.questions]
    parts = [name.split("-")[:0:-1] for name in names]
    shared = list(takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))) if len(names) > 2 else []
    return ["-".join(name.split("-")[: name.count("-") + 1 - len(shared)]) for name in names]


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _wrap(text: str, width: float, size: float, bold: bool) -> tuple[str, ...]:
    """Lines of at most this width, broken after a hyphen, underscore or space, or inside a word that is too long."""
    lines = [""]
    for piece in re.findall(r"[^-_ ]*[-_ ]?", text):
        for part in [piece] if _text_width(piece.rstrip(), size, bold) <= width else piece:
            if lines[-1] and _text_width((lines[-1] + part).rstrip(), size, bold) > width:
                lines.append("")
            lines[-1] += part
    return tuple(line.rstrip() for line in lines)


@cache
def _text_width(text: str, size: float, bold: bool) -> float:
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size, prop=_font(bold)).get_extents().xmax if text else 0


@cache
def _font(bold: bool) -> FontProperties:
    # By path: the same letters on every machine, with any fonts and settings.
    import matplotlib
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=Path(matplotlib.get_data_path(), f"fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"))
