"""The prediction of a model as HTML: a table for each question, with the expected votes as bars."""

import base64
import io
import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from alike import Drawn
from text import sentence

COLORMAP = colormaps["inferno"]
SIDE = 256  # pixels of the displayed views


def answers_html(
    title: str, described: dict[str, Any], volunteers: int, unlikeness: float, worth: Mapping[str, str] = {}
) -> str:
    """The answers of one model to all questions of a campaign.

    Args:
        title: of the model.
        described: as of `GalaxyModel.describe`.
        unlikeness: as of `Prediction`.
        worth: as of `GalaxyModel.worth`.
    """
    likely = {(step["question"], step["answer"]) for step in described["path"]}
    parts = [
        _familiar(unlikeness),
        f'<p class="likely">{escape(sentence("classify.likely", path=described["description"]))}</p>',
        *(_question(each, likely, volunteers, worth.get(each["question"])) for each in described["questions"]),
    ]
    return f'<section class="answers" aria-label="{escape(title)}"><h3>{escape(title)}</h3>{"".join(parts)}</section>'


def _familiar(unlikeness: float) -> str:
    times = f"{unlikeness:.1f}" if unlikeness < 10 else f"{unlikeness:,.0f}"
    if unlikeness > 1:
        words = escape(sentence("classify.unlike_more", times=times))
        return f'<p class="warning" role="alert"><strong>⚠ {escape(sentence("classify.unlike"))}</strong> {words}</p>'
    return f'<p class="familiar">{escape(sentence("classify.familiar", times=times))}</p>'


def _question(question: dict[str, Any], likely: set[tuple[str, str]], volunteers: int, worth: str | None) -> str:
    name = question["question"]
    asked = sentence("classify.asked", asked=f"{question['asked'] * volunteers:.0f}", volunteers=volunteers)
    if worth is not None:
        asked += sentence("classify.worth", worth=worth)
    head = "".join(
        f'<th scope="col">{escape(sentence(f"classify.{each}"))}</th>' for each in ("answer", "votes", "interval")
    )
    rows = "".join(_answer(each, (name, each["answer"]) in likely, volunteers) for each in question["answers"])
    return (
        f'<table><caption><strong>{escape(question_words(name))}</strong> <span class="asked">{escape(asked)}</span></caption>'
        '<colgroup><col class="name"><col><col class="interval"></colgroup>'
        f'<thead class="unseen"><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _answer(answer: dict[str, Any], likely: bool, volunteers: int) -> str:
    share = 100 * answer["votes"] / volunteers
    interval, whisker = sentence("classify.no_interval"), ""
    if answer["votes_interval"]:
        low, high = answer["votes_interval"]
        interval = sentence("classify.range", low=low, high=high)
        left, right = 100 * low / volunteers, 100 * high / volunteers
        whisker = f'<i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
    mark = f' <span class="mark">{escape(sentence("classify.likely_answer"))}</span>' if likely else ""
    return (
        f'<tr{" class=on-path" if likely else ""}><th scope="row">{escape(answer["answer"].replace("-", " "))}{mark}</th>'
        f'<td class="votes"><span class="bar" aria-hidden="true"><b style="width:{share:.1f}%"></b>{whisker}</span>'
        f'<span class="count">{answer["votes"]:.1f}</span></td><td class="interval">{escape(interval)}</td></tr>'
    )


def question_words(name: str) -> str:
    """The name of a question in words, without its campaign."""
    words = name.rsplit("-", 1)[0].replace("-", " ")
    return words[0].upper() + words[1:]


def views_html(view: np.ndarray, saliency: np.ndarray) -> str:
    """The input of a model, and beside it the saliency map.

    Args:
        view: (3, S, S) in [0, 1].
        saliency: (S, S), as of `GalaxyModel.saliency`.
    """
    pixels = np.rint(255 * view.transpose(1, 2, 0)).astype(np.uint8)
    bright = np.clip(saliency, 0, None)
    peak = bright.max()
    colours = COLORMAP(bright / peak if peak > 0 else bright)[..., :3]
    # With the galaxy in grey below the map.
    grey = view.mean(axis=0)[..., None]
    overlay = np.rint(255 * np.clip(0.35 * grey + 0.8 * colours, 0, 1)).astype(np.uint8)
    alt = (
        sentence("classify.why_alt", where=sentence(f"classify.{_where(bright)}"), share=_half(bright))
        if peak > 0
        else sentence("classify.why_nothing_alt")
    )
    figures = [
        (pixels, sentence("classify.saw"), sentence("classify.saw_alt", side=view.shape[-1])),
        (overlay, sentence("classify.why"), alt),
    ]  # fmt: skip
    return (
        f'<div class="views">{"".join(_figure(_jpeg(each), alt, escape(words)) for each, words, alt in figures)}</div>'
    )


def _where(bright: np.ndarray) -> str:
    """The third of the picture, across and down, with the brightest place."""
    side = len(bright)
    row, column = np.unravel_index(np.argmax(bright), bright.shape)
    down = {0: "upper", 1: "", 2: "lower"}[int(3 * row / side)]
    across = {0: "left", 1: "", 2: "right"}[int(3 * column / side)]
    return "_".join(filter(None, [down, across])) or "center"


def _half(bright: np.ndarray) -> int:
    """Percentage of the area, from the brightest place on, with half of the total brightness."""
    falling = np.sort(bright, axis=None)[::-1].cumsum()
    return math.ceil(100 * (np.searchsorted(falling, falling[-1] / 2) + 1) / bright.size)


def alike_html(galaxies: Iterable[Drawn]) -> str:
    """Drawn galaxies, each with its morphology in words."""
    figures = [
        _figure(each.picture, sentence("classify.alike_alt", words=each.words, likeness=f"{each.likeness:.2f}"), escape(each.words))
        for each in galaxies
    ]  # fmt: skip
    return f'<div class="alike">{"".join(figures)}</div>'


def failed_html(message: str) -> str:
    """An error message."""
    return f'<p class="warning" role="alert"><strong>⚠ {escape(sentence("classify.failed"))}.</strong> {escape(message)}</p>'


def _figure(jpeg: bytes, alt: str, caption: str) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"><figcaption>{caption}</figcaption></figure>'


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
