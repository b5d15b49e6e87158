"""Saliency maps: which parts of a picture an answer depends on, by masking them. Legend: B views, S side of a view, A answers."""

from collections.abc import Callable

import numpy as np

from hf_galaxy.models.onnx_model import Answers

CELLS = 8  # in a row: the resolution of the masks
BATCH = 64  # masked views at once


def saliency(
    answer: Callable[[np.ndarray], Answers], view: np.ndarray, index: int, masks: int = 256, seed: int = 0
) -> np.ndarray:
    """The difference between an answer's expected fraction of votes with a pixel visible and with it masked.

    RISE (Petsiuk et al. 2018, huggingface.co/papers/1806.07421): the view is shown through random soft masks, each of which
    replaces half of it with the sky, and the expected fraction is regressed on the visibility of each pixel. Only outputs of the
    model are used. Masks come in pairs, one the inverse of the other, so that each pixel is visible half of the time.
    With 256 masks faint structures are mostly noise, and differ with another `seed`.

    Args:
        answer: `FastModel.answer`, or another function of (B, 3, S, S).
        view: (3, S, S) float32 in [0, 1].
        index: of the answer, in the tree's columns.
        masks: an even number; more take longer, and leave less noise.

    Returns:
        (S, S) float32 differences of fractions: positive where the pixel supports the answer, negative where it opposes it.
    """
    visible = _masks(view.shape[1], masks, seed)
    sky = _sky(view)
    batches = []
    for masks_of_batch in np.split(visible, range(BATCH, masks, BATCH)):
        views = sky + masks_of_batch[:, None] * (view - sky)
        batches.append(answer(views.astype(np.float32)).fractions[:, index])
    fractions = np.concatenate(batches)
    visible -= 0.5  # the mean, as masks are paired
    slope = np.tensordot(fractions - fractions.mean(), visible, axes=1) / (visible**2).sum(axis=0)
    return slope.astype(np.float32)


def _sky(view: np.ndarray) -> np.ndarray:
    """(3, 1, 1): the median of the border, which stars and an overlapping galaxy hardly change."""
    width = max(1, view.shape[1] // 16)
    border = np.ones(view.shape[1:], dtype=bool)
    border[width:-width, width:-width] = False
    return np.median(view[:, border], axis=1)[:, None, None]


def _masks(size: int, masks: int, seed: int) -> np.ndarray:
    """(masks, S, S) float32 from 0 (masked) to 1 (visible): random grids of cells with random shifts, interpolated linearly between corners."""
    rng = np.random.default_rng(seed)
    corners = (rng.random((masks // 2, CELLS + 2, CELLS + 2)) < 0.5).astype(np.float32)
    places = np.arange(size) * CELLS / size + rng.random((2, masks // 2, 1))
    down, across = (1 - np.abs(places[..., None] - np.arange(CELLS + 2))).clip(0).astype(np.float32)
    half = down @ corners @ across.transpose(0, 2, 1)
    return np.concatenate([half, 1 - half])
