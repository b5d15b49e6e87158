"""What a picture simply looks like, in a few numbers that no network is needed for, so that what is no galaxy can be told.

A network maps what it has never seen to wherever it likes, also amid its galaxies: white noise, print and the negative of a
galaxy are familiar to it. Their light is not spread over scales, over the view and over colours as that of galaxies is.

Legend of shapes: B views, S side of a view, L looks.
"""

import numpy as np

# Of the radius of the circle in the view; the corners are in the last ring.
RINGS = (0, 0.15, 0.35, 0.6, 0.85, 1.5)
# Of light in [0, 1], and of its squares: less than this is nothing, for an 8-bit picture and with what JPEG adds.
FAINT, FAINT_SQUARED = 1e-2, 1e-7


def looks_of(views: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) RGB in [0, 1], S at least 10 -> (B, L) float64, which turns by 90 degrees and mirrors do not change.

    In this order:
        the variance of the luminance in each octave of scales, in dex: waves of less than 4 pixels, of 4 to 8, and so on; in the
            last all that are longer, from half to a quarter of the view on. A Hann window keeps the borders out of it;
        the mean luminance in each of five rings around the centre, in dex;
        how much more red, and how much more green, there is than luminance, and the variance of such differences, in dex.
    Of a view of 64 px these are 13. On the Space's models these did not help: the variance within rings, the kurtosis of each
    octave, the share of black and of white pixels; a Laplacian pyramid in place of the octaves told less.
    """
    views = np.asarray(views, dtype=np.float64)
    luminance = views.mean(axis=1)
    excess = views - luminance[:, None]
    return np.concatenate(
        [
            np.log10(_variances(luminance) + FAINT_SQUARED),
            np.log10(_means(luminance) + FAINT),
            excess[:, :2].mean(axis=(2, 3)),
            np.log10((excess**2).mean(axis=(1, 2, 3)) + FAINT_SQUARED)[:, None],
        ],
        axis=1,
    )


def _variances(luminance):
    """(B, S, S) -> (B, octaves)."""
    side = luminance.shape[1]
    window = np.hanning(side + 2)[1:-1]  # without its zeros
    window = np.outer(window, window) / (window**2).mean()
    fluctuations = luminance - luminance.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(fluctuations * window)) ** 2 / side**4  # adds up to the mean square (Parseval)
    frequency = np.fft.fftfreq(side)
    frequency = np.hypot(frequency[:, None], frequency).clip(0.5 / side)  # cycles per pixel
    octaves = int(np.log2(side)) - 1
    octave = (np.floor(-np.log2(frequency)) - 1).clip(0, octaves - 1)
    return np.stack([power[:, octave == each].sum(axis=1) for each in range(octaves)], axis=1)


def _means(luminance):
    """(B, S, S) -> (B, rings)."""
    side = luminance.shape[1]
    across = (np.arange(side) + 0.5) * 2 / side - 1
    radius = np.hypot(across[:, None], across)
    ring = np.digitize(radius, RINGS) - 1
    return np.stack([luminance[:, ring == each].mean(axis=1) for each in range(len(RINGS) - 1)], axis=1)
