"""Small charts that a page draws itself, as SVG in its own colours and letters: readable on a phone, light and dark.

Here is the geometry alone, in units of a drawing of WIDTH x HEIGHT; `templates/inline_charts.html.jinja` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 350, 10, 212  # of the axes
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line through points.

    Attributes:
        label: of the legend.
        look: the CSS class of its colour.
        points: in the units of the axes.
        dashed: a line to compare with: dashed, and without markers.
    """

    label: str
    look: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: what it measures, its ends, and its ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, label: str, values: Sequence[float], margin: float = 0.08) -> Axis:
        """An axis that shows all values, with a margin as a share of its length."""
        low, high = min(values), max(values)
        space = margin * (high - low) or 0.5
        low, high = low - space, high + space
        return cls(label, low, high, round_numbers(low, high))

    @classmethod
    def of_shares(cls, label: str) -> Axis:
        """From 0 to 1."""
        return cls(label, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))

    def place(self, value: float) -> float:
        """Where a value is between both ends, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Chart:
    """Lines in axes.

    Attributes:
        alt: what it shows, in words.
    """

    title: str
    alt: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    width: int = WIDTH
    height: int = HEIGHT

    def placed(self, points: Sequence[Point]) -> Iterator[Point]:
        """Points in the units of the drawing."""
        for x, y in points:
            yield round(LEFT + self.x.place(x) * (RIGHT - LEFT), 1), round(BOTTOM - self.y.place(y) * (BOTTOM - TOP), 1)

    def x_ticks(self) -> list[tuple[str, float]]:
        """Their labels and places."""
        places = self.placed([(tick, self.y.low) for tick in self.x.ticks])
        return [(f"{tick:g}", x) for tick, (x, _) in zip(self.x.ticks, places, strict=True)]

    def y_ticks(self) -> list[tuple[str, float]]:
        """Their labels and places."""
        places = self.placed([(self.x.low, tick) for tick in self.y.ticks])
        return [(f"{tick:g}", y) for tick, (_, y) in zip(self.y.ticks, places, strict=True)]

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom of the axes."""
        return LEFT, RIGHT, TOP, BOTTOM


def round_numbers(low: float, high: float, most: int = 6) -> list[float]:
    """At most some round numbers at equal distances between two others."""
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= most)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
