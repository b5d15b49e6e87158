"""What a model says of a picture as HTML: a table for each question, its bars the votes expected."""

import base64
import io
import math
from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib import colormaps
from PIL import Image

from alike import Drawn
from text import say

BRIGHT = colormaps["inferno"]
SIDE = 256  # pixels at which views are shown


def answers_html(title: str, said: dict, volunteers: int, unlikeness: float) -> str:
    """All questions of one campaign, as one model answers them.

    Args:
        title: of the model.
        said: as `GalaxyModel.says`.
        unlikeness: as of `Looked`.
    """
    likely = {(step["question"], step["answer"]) for step in said["path"]}
    parts = [
        _familiar(unlikeness),
        f'<p class="likely">{escape(say("classify.likely", path=said["description"]))}</p>',
        *(_question(each, likely, volunteers) for each in said["questions"]),
    ]
    return f'<section class="answers" aria-label="{escape(title)}"><h3>{escape(title)}</h3>{"".join(parts)}</section>'


def _familiar(unlikeness):
    times = f"{unlikeness:.1f}" if unlikeness < 10 else f"{unlikeness:,.0f}"
    if unlikeness > 1:
        words = escape(say("classify.unlike_more", times=times))
        return f'<p class="warning" role="alert"><strong>⚠ {escape(say("classify.unlike"))}</strong> {words}</p>'
    return f'<p class="familiar">{escape(say("classify.familiar", times=times))}</p>'


def _question(question, likely, volunteers):
    name = question["question"]
    asked = say("classify.asked", asked=f"{question['asked'] * volunteers:.0f}", volunteers=volunteers)
    head = "".join(
        f'<th scope="col">{escape(say(f"classify.{each}"))}</th>' for each in ("answer", "votes", "interval")
    )
    rows = "".join(_answer(each, (name, each["answer"]) in likely, volunteers) for each in question["answers"])
    return (
        f'<table><caption><strong>{escape(question_words(name))}</strong> <span class="asked">{escape(asked)}</span></caption>'
        '<colgroup><col class="name"><col><col class="interval"></colgroup>'
        f'<thead class="unseen"><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _answer(answer, likely, volunteers):
    share = 100 * answer["votes"] / volunteers
    interval, whisker = say("classify.no_interval"), ""
    if answer["votes_interval"]:
        low, high = answer["votes_interval"]
        interval = say("classify.range", low=low, high=high)
        left, right = 100 * low / volunteers, 100 * high / volunteers
        whisker = f'<i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
    mark = f' <span class="mark">{escape(say("classify.likely_answer"))}</span>' if likely else ""
    return (
        f'<tr{" class=on-path" if likely else ""}><th scope="row">{escape(answer["answer"].replace("-", " "))}{mark}</th>'
        f'<td class="votes"><span class="bar" aria-hidden="true"><b style="width:{share:.1f}%"></b>{whisker}</span>'
        f'<span class="count">{answer["votes"]:.1f}</span></td><td class="interval">{escape(interval)}</td></tr>'
    )


def question_words(name: str) -> str:
    """A question's name without its campaign, for people."""
    words = name.rsplit("-", 1)[0].replace("-", " ")
    return words[0].upper() + words[1:]


def views_html(view: np.ndarray, looked_at: np.ndarray) -> str:
    """What the model saw, and beside it what it looked at.

    Args:
        view: (3, S, S) in [0, 1].
        looked_at: (S, S), as of `GalaxyModel.looked_at`.
    """
    pixels = np.rint(255 * view.transpose(1, 2, 0)).astype(np.uint8)
    bright = np.clip(looked_at, 0, None)
    peak = bright.max()
    colours = BRIGHT(bright / peak if peak > 0 else bright)[..., :3]
    # The galaxy in grey shines through, so that one sees what lies where.
    grey = view.mean(axis=0)[..., None]
    overlay = np.rint(255 * np.clip(0.35 * grey + 0.8 * colours, 0, 1)).astype(np.uint8)
    alt = (
        say("classify.why_alt", where=say(f"classify.{_where(bright)}"), share=_half(bright))
        if peak > 0
        else say("classify.why_nothing_alt")
    )
    figures = [
        (pixels, say("classify.saw"), say("classify.saw_alt", side=view.shape[-1])),
        (overlay, say("classify.why"), alt),
    ]  # fmt: skip
    return (
        f'<div class="views">{"".join(_figure(_jpeg(each), alt, escape(words)) for each, words, alt in figures)}</div>'
    )


def _where(bright):
    """The third of the picture, across and down, in which the brightest place lies."""
    side = len(bright)
    row, column = np.unravel_index(np.argmax(bright), bright.shape)
    down = {0: "upper", 1: "", 2: "lower"}[int(3 * row / side)]
    across = {0: "left", 1: "", 2: "right"}[int(3 * column / side)]
    return "_".join(filter(None, [down, across])) or "center"


def _half(bright):
    """Percentage of the area that holds half of what is bright."""
    falling = np.sort(bright, axis=None)[::-1].cumsum()
    return math.ceil(100 * (np.searchsorted(falling, falling[-1] / 2) + 1) / bright.size)


def alike_html(galaxies: Iterable[Drawn]) -> str:
    """Drawn galaxies, each with what it is."""
    figures = [
        _figure(each.picture, say("classify.alike_alt", words=each.words, likeness=f"{each.likeness:.2f}"), escape(each.words))
        for each in galaxies
    ]  # fmt: skip
    return f'<div class="alike">{"".join(figures)}</div>'


def failed_html(message: str) -> str:
    """Why there is no answer."""
    return f'<p class="warning" role="alert"><strong>⚠ {escape(say("classify.failed"))}.</strong> {escape(message)}</p>'


def _figure(jpeg, alt, caption):
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"><figcaption>{caption}</figcaption></figure>'


def _jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
