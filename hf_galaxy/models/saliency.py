"""What of a picture an answer rests on, found by covering parts of it. Legend: B views, S side of a view, A answers."""

from collections.abc import Callable

import numpy as np

from hf_galaxy.models.onnx_model import Answers

CELLS = 8  # in a row: masks tell no finer parts of the view from each other
BATCH = 64  # masked views at once


def saliency(
    answer: Callable[[np.ndarray], Answers], view: np.ndarray, index: int, masks: int = 256, seed: int = 0
) -> np.ndarray:
    """How many more of the votes an answer is expected to get where a place in the view is seen than where it is covered.

    RISE (Petsiuk et al. 2018, huggingface.co/papers/1806.07421): the view is shown through random soft masks, each of which
    covers half of it with the sky, and the expected fraction is regressed on whether a pixel was seen. The model is asked,
    never looked into. Masks come in pairs, one the inverse of the other, so that each pixel is seen as often as not.
    With 256 masks much of what is faint is noise: other masks (`seed`) show it elsewhere.

    Args:
        answer: `FastModel.answer`, or whatever says as much of (B, 3, S, S).
        view: (3, S, S) float32 in [0, 1].
        index: of the answer, in the tree's columns.
        masks: an even number; more take longer, and leave less noise.

    Returns:
        (S, S) float32, a difference of fractions: above 0 what speaks for the answer, below 0 what speaks against it.
    """
    seen = _masks(view.shape[1], masks, seed)
    sky = _sky(view)
    fractions = []
    for some in np.split(seen, range(BATCH, masks, BATCH)):
        views = sky + some[:, None] * (view - sky)
        fractions.append(answer(views.astype(np.float32)).fractions[:, index])
    fractions = np.concatenate(fractions)
    seen -= 0.5  # the mean, as masks are paired
    slope = np.tensordot(fractions - fractions.mean(), seen, axes=1) / (seen**2).sum(axis=0)
    return slope.astype(np.float32)


def _sky(view):
    """(3, 1, 1): the median of the border, of which stars and a galaxy that reaches into it are a small part."""
    width = max(1, view.shape[1] // 16)
    border = np.ones(view.shape[1:], dtype=bool)
    border[width:-width, width:-width] = False
    return np.median(view[:, border], axis=1)[:, None, None]


def _masks(size, masks, seed):
    """(masks, S, S) float32 from 0, covered, to 1: a random grid of cells, moved at random, and linear between their corners."""
    rng = np.random.default_rng(seed)
    corners = (rng.random((masks // 2, CELLS + 2, CELLS + 2)) < 0.5).astype(np.float32)
    places = np.arange(size) * CELLS / size + rng.random((2, masks // 2, 1))
    down, across = (1 - np.abs(places[..., None] - np.arange(CELLS + 2))).clip(0).astype(np.float32)
    half = down @ corners @ across.transpose(0, 2, 1)
    return np.concatenate([half, 1 - half])
