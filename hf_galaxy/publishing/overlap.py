"""Galaxies that are in two datasets: by name, by position in the sky, and by picture, also of different frames.

Legend of shapes: N galaxies, M pairs, n pictures, S side of the standard picture.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image

from hf_galaxy.data.pictures import open_picture, to_rgb
from hf_galaxy.data.schema import contents_of
from hf_galaxy.data.targets import tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.importing.dataset import open_dataset
from hf_galaxy.importing.duplicates import MIN_SIMILARITY, SAME_GALAXY_ARCSEC, pairs_on_the_sky
from hf_galaxy.importing.reading import Reading
from hf_galaxy.progress import progress

SIDE = 192  # S, pixels of each decoded picture
COMPARED = 0.6  # share of the narrower of two fields that is compared; the rest allows for galaxies off the centre
COARSE, FINE = 16, 48  # pixels of a crop
STEP = 1.12  # between two ratios of the first comparison: half a coarse pixel at the edge of a crop
RATIOS_IN_STEP = 5  # of the second comparison
CANDIDATES = 3  # for each galaxy of the smaller dataset
MIN_PIXELS = 20  # of the original across a crop: with fewer, enlarged pictures resemble each other
MIN_HINT = 0.5  # similarity in the second comparison from which the third follows
SHIFT = 3  # fine pixels to each side that are tried
BLOCK = 2048  # pictures in memory at the same time


class Listing:
    """The galaxies of all splits of a dataset: names, positions and pictures.

    Args:
        name: a folder or Hub id.
        reading: how it is read (`open_dataset`).
        name_columns: columns with the names of the galaxies in other catalogues; columns that the dataset lacks are ignored.

    Attributes:
        ids, splits: (N,) of each galaxy.
        names: all names of each galaxy.
        positions: (N, 2) right ascension and declination in degrees, NaN where unknown.
        unreadable: numbers of the galaxies whose pictures could not be decoded.

    Raises:
        BadInput: the dataset cannot be opened.
    """

    def __init__(self, name: str, reading: Reading | None = None, name_columns: Collection[str] = ()) -> None:
        self.name = name
        self.unreadable: set[int] = set()
        opened = open_dataset(name, reading)
        self.columns = set(next(iter(opened.values())).column_names)
        named = ["id_str", *(column for column in name_columns if column in self.columns)]
        sky = ["ra", "dec"] if {"ra", "dec"} <= self.columns else []
        self.splits: list[str] = []
        names: list[tuple[str | None, ...]] = []
        positions = [np.empty((0, 2))]
        for split, rows in opened.items():
            for table in tables_of(rows, [*named, *sky]):
                self.splits += [split] * len(table)
                names += zip(*(table[column].to_pylist() for column in named), strict=True)
                if sky:
                    positions.append(np.stack([table[c].cast(pa.float64()).to_numpy() for c in sky], axis=1))
        self.ids = [of_galaxy[0] for of_galaxy in names]
        self.names = [{str(name) for name in of_galaxy if name is not None and name != ""} for of_galaxy in names]
        self.positions = np.concatenate(positions) if sky else np.full((len(self.ids), 2), np.nan)
        self.parts = [rows.select_columns(["image"]).with_format("arrow") for rows in opened.values()]
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return len(self.ids)

    def pictures(self, galaxies: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, S, S) uint8, the central squares of some galaxies' pictures in grey, and (n,) their sides in the originals.

        A picture that cannot be decoded is black, with side 0.

        Args:
            galaxies: (n,) numbers in ascending order.
        """
        contents = []
        for rows, first, end in zip(self.parts, self.starts, self.starts[1:], strict=False):
            here = galaxies[(galaxies >= first) & (galaxies < end)] - first
            if len(here):
                contents += contents_of(rows[here.tolist()]["image"])
        squares, sides = np.zeros((len(contents), SIDE, SIDE), np.uint8), np.zeros(len(contents), np.float32)
        for i, content in enumerate(contents):
            try:
                squares[i], sides[i] = _square(content)
            except Exception:  # decoders raise many kinds
                self.unreadable.add(int(galaxies[i]))
        return torch.from_numpy(squares), torch.from_numpy(sides)


def _square(content: bytes | None) -> tuple[np.ndarray, int]:
    picture = open_picture(content)
    picture.draft("L", (SIDE, SIDE))  # a JPEG's brightness alone, and of a large one no more than is needed
    width, height = original = picture.size
    side = min(original)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(to_rgb(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)), side


def same_names(ours: Listing, theirs: Listing) -> np.ndarray:
    """(M, 2) pairs of galaxies that have a name in common."""
    galaxies = defaultdict(list)
    for j, names in enumerate(theirs.names):
        for name in names:
            galaxies[name].append(j)
    pairs = {(i, j) for i, names in enumerate(ours.names) for name in names for j in galaxies.get(name, ())}
    return np.array(sorted(pairs), dtype=int).reshape(-1, 2)


def same_positions(ours: Listing, theirs: Listing, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """(M, 2) pairs of galaxies within `arcsec` of each other; none if a dataset has no columns ra and dec."""
    pairs = np.sort(pairs_on_the_sky(np.concatenate([ours.positions, theirs.positions]), arcsec), axis=1)
    across = (pairs[:, 0] < len(ours)) & (pairs[:, 1] >= len(ours))
    return pairs[across] - [0, len(ours)]


def same_pictures(
    ours: Listing, theirs: Listing, scales: tuple[float, float] = (1 / 3, 3), min_similarity: float = MIN_SIMILARITY
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (M, 2) of galaxies with the same picture, and (M,) their similarities, above `min_similarity`.

    One picture may show a wider field than the other, at another resolution, in grey and encoded otherwise; it may not be
    rotated or mirrored. Each galaxy of the smaller dataset is compared with all of the larger at 16 x 16 pixels, for several
    ratios of the widths of their fields; `similarities` compares it more closely with the three that are most similar.

    Time grows with the product of both numbers, memory with the smaller: 11 kB for each galaxy with these scales.

    Args:
        scales: smallest and largest ratio of the width of their fields to ours.
    """
    if len(ours) > len(theirs):
        pairs, similar = same_pictures(theirs, ours, (1 / scales[1], 1 / scales[0]), min_similarity)
        return pairs[:, ::-1], similar
    ratios = _ratios(scales)
    blocks = [_coarse(squares, ratios, 0) for _, squares, _ in _blocks(ours, f"describing {ours.name}")]
    small = {share: torch.cat([block[share] for block in blocks]) for share in blocks[0]}
    del blocks
    top, which = torch.empty(len(ours), 0), torch.empty(len(ours), 0, dtype=torch.int64)
    for first, squares, _ in _blocks(theirs, f"comparing with {theirs.name}"):
        large = _coarse(squares, ratios, 1)
        values, indices = [], []
        for i in range(0, len(ours), 256):  # few enough to stay in the processor's cache
            products = torch.full((len(top[i : i + 256]), len(squares)), -1.0)
            for ratio in ratios:
                one, other = _shares(ratio)
                torch.maximum(products, small[one][i : i + 256] @ large[other].T, out=products)
            best = products.topk(min(CANDIDATES, len(squares)), dim=1)
            values.append(best.values)
            indices.append(best.indices)
        top, which = torch.cat([top, torch.cat(values)], 1), torch.cat([which, torch.cat(indices) + first], 1)
        top, best = top.topk(min(CANDIDATES, top.shape[1]), dim=1)
        which = which.gather(1, best)
    pairs = np.stack([np.repeat(np.arange(len(ours)), which.shape[1]), which.numpy().ravel()], axis=1)
    similar = similarities(ours, theirs, pairs, scales)
    return pairs[similar > min_similarity], similar[similar > min_similarity]


def similarities(
    ours: Listing, theirs: Listing, pairs: np.ndarray, scales: tuple[float, float] = (1 / 3, 3)
) -> np.ndarray:
    """(M,) similarity of the pictures of some pairs: the correlation of their fine structure where they match best.

    Fine structure is between 0.7 and 2 pixels large at 48 x 48 pixels, and normalised by its local amplitude: two edge-on
    galaxies have the same outline, but not the same stars and noise around them. The centre of the narrower field is
    compared, at ratios 3 % apart and up to three pixels off centre.

    Measured on public sets of SDSS pictures: all of 11 galaxies in both Galaxy Zoo 1 and 2 (160 px beside 212 px, fields
    that are 1.1 to 1.5 times as wide) reach 0.93; none of the other candidates is above 0.60. Of 5,000 pictures and
    28,793 whose frame is 0.6 as wide, 2,391 pairs have the same name: all of them, and no others, are above 0.88. Without
    names, 6,664 beside 28,793, there are 279 pairs above 0.87, none down to 0.79, and a tail of others below: hence
    MIN_SIMILARITY. Without the normalisation, edge-on galaxies reached 0.82 with others.

    Returns:
        Float32 in [-1, 1]; 0 for a picture that is unreadable, of one brightness, or less than MIN_PIXELS wide where both
        overlap.
    """
    ratios, result = _ratios(scales), np.zeros(len(pairs), np.float32)
    if not len(pairs):
        return result
    order = np.lexsort(pairs.T[::-1])
    with progress(total=len(pairs), desc="comparing candidates", unit=" pairs") as show:
        for first in range(0, len(pairs), BLOCK // 4):
            block = order[first : first + BLOCK // 4]
            i, j = pairs[block].T
            result[block] = _compared(_pictures_of(ours, i), _pictures_of(theirs, j), ratios)
            show.update(len(block))
    return result


def _pictures_of(listing: Listing, galaxies: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pictures of one side of some pairs, the widths of the originals, and the index of each pair's picture."""
    different, index = np.unique(galaxies, return_inverse=True)
    return *listing.pictures(different), torch.from_numpy(index)


def _compared(
    ours: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    theirs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ratios: list[float],
) -> np.ndarray:
    """`similarities` of a block of pairs."""
    (our, our_width, i), (their, their_width, j) = ours, theirs
    coarse_our, coarse_their = _coarse(our, ratios, 0), _coarse(their, ratios, 1)
    coarse = [(coarse_our[a][i] * coarse_their[b][j]).sum(1) for a, b in map(_shares, ratios)]
    nearest = torch.stack(coarse).argmax(0)
    finer = STEP ** (np.arange(RATIOS_IN_STEP) / (RATIOS_IN_STEP - 1) - 0.5)

    def best(pairs: torch.Tensor, factors: np.ndarray, parts: int) -> torch.Tensor:
        result = torch.zeros(len(i))
        for k in nearest[pairs].unique().tolist():
            here = pairs[nearest[pairs] == k]
            for ratio in ratios[k] * factors:
                a, b = _shares(ratio)
                resolved = (our_width[i[here]] * a >= MIN_PIXELS) & (their_width[j[here]] * b >= MIN_PIXELS)
                products = _shifted(_structure(our[i[here]], a), _structure(their[j[here]], b), parts)
                result[here] = torch.maximum(result[here], products * resolved)
        return result

    similar = best(torch.arange(len(i)), finer[::2], 1)
    return torch.maximum(similar, best((similar > MIN_HINT).nonzero().flatten(), finer, 2)).numpy()


def _shifted(x: torch.Tensor, y: torch.Tensor, parts: int) -> torch.Tensor:
    """(n,) the largest correlation of two maps, shifted by up to SHIFT pixels in steps of a pixel or a part of it."""
    half, whole = x.shape[1] // 2, parts * x.shape[1]
    products = torch.fft.rfft2(x) * torch.fft.rfft2(y).conj()
    padded = products.new_zeros(len(x), whole, whole // 2 + 1)  # zeros for what the maps do not resolve interpolate
    padded[:, :half, : half + 1], padded[:, -half:, : half + 1] = products[:, :half], products[:, half:]
    products = torch.fft.irfft2(padded, s=(whole, whole)) * parts**2
    reach = SHIFT * parts
    return torch.roll(products, (reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1].flatten(1).amax(1)


def _ratios(scales: tuple[float, float]) -> list[float]:
    """Ratios of the widths of two fields, at most STEP apart."""
    steps = int(np.ceil(np.log(scales[1] / scales[0]) / np.log(STEP)))
    return np.geomspace(scales[0], scales[1], steps + 1).tolist()


def _shares(ratio: float) -> tuple[float, float]:
    """The shares of the sides of our and their picture to crop, if their field is wider by this ratio."""
    return COMPARED * min(1, ratio), COMPARED * min(1, 1 / ratio)


def _blocks(listing: Listing, description: str) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Number of the first galaxy and `Listing.pictures` of each block of galaxies."""
    with progress(total=len(listing), desc=description, unit=" galaxies") as show:
        for first in range(0, len(listing), BLOCK):
            galaxies = np.arange(first, min(first + BLOCK, len(listing)))
            yield first, *listing.pictures(galaxies)
            show.update(len(galaxies))


def _coarse(squares: torch.Tensor, ratios: list[float], side: int) -> dict[float, torch.Tensor]:
    """Share of the side -> (n, COARSE * COARSE) of unit length, the central crop at low resolution."""
    crops: dict[float, list[torch.Tensor]] = {_shares(ratio)[side]: [] for ratio in ratios}
    for some in squares.split(256):
        halved = F.avg_pool2d(some[:, None].float(), 2)[:, 0]
        for share, parts in crops.items():
            coarse = _compressed(_cut(halved, share, COARSE)).flatten(1)
            coarse -= coarse.mean(1, keepdim=True)
            parts.append(coarse / coarse.norm(dim=1, keepdim=True).clamp(min=0.01))  # one brightness: zeros
    return {share: torch.cat(parts) for share, parts in crops.items()}


def _structure(squares: torch.Tensor, share: float) -> torch.Tensor:
    """(n, FINE, FINE) of unit length: the fine structure of the central crop."""
    cut = _compressed(_cut(squares.float(), share, FINE))
    detail = _blurred(cut, 0.7) - _blurred(cut, 2)
    detail /= _blurred(detail**2, 3).clamp(min=0).sqrt() + 0.01
    detail -= detail.mean((1, 2), keepdim=True)
    return detail / detail.flatten(1).norm(dim=1).clamp(min=1)[:, None, None]  # some 48, but for one brightness


def _compressed(pixels: torch.Tensor) -> torch.Tensor:
    return torch.asinh(pixels / 10)  # limits the weight of bright cores


def _cut(squares: torch.Tensor, share: float, pixels: int) -> torch.Tensor:
    """(n, pixels, pixels): the central crop of pictures, resized by weights that fall off linearly to both sides."""
    whole = squares.shape[1]
    step = share * whole / pixels
    first = max(0, int((1 - share) / 2 * whole - step - 1))
    centre = squares[:, first : whole - first, first : whole - first]
    centres = whole / 2 - first + (torch.arange(pixels) + 0.5 - pixels / 2) * step
    distances = (torch.arange(centre.shape[1]) + 0.5 - centres[:, None]).abs()
    weights = (1 - distances / max(step, 1)).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    return weights @ centre @ weights.T


def _blurred(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    places = torch.arange(maps.shape[1])
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    return weights @ maps @ weights.T


def overlap(
    ours: Listing,
    theirs: Listing,
    arcsec: float = SAME_GALAXY_ARCSEC,
    scales: tuple[float, float] = (1 / 3, 3),
    min_similarity: float = MIN_SIMILARITY,
    pictures: bool = True,
) -> pd.DataFrame:
    """The galaxies of ours that are among theirs, one row for each pair.

    Args:
        arcsec: galaxies closer than this are the same.
        scales: as of `same_pictures`.
        min_similarity: pictures that are more similar are the same.
        pictures: compare pictures.

    Returns:
        Columns dataset, id_str, split, other_dataset, other_id_str, other_split; how: "name", "position" and "picture",
        joined by +; similarity of the pictures, NaN if they were not compared.
    """
    matches = {"name": same_names(ours, theirs), "position": same_positions(ours, theirs, arcsec)}
    similarity: dict[tuple[int, int], float] = {}
    if pictures and len(ours) and len(theirs):
        matches["picture"], similar = same_pictures(ours, theirs, scales, min_similarity)
        similarity = dict(zip(map(tuple, matches["picture"].tolist()), similar.tolist(), strict=True))
    how = defaultdict(list)
    for way, found in matches.items():
        for pair in found.tolist():
            how[tuple(pair)].append(way)
    pairs = sorted(how)
    if pictures and (rest := [pair for pair in pairs if pair not in similarity]):
        similarity |= zip(rest, similarities(ours, theirs, np.array(rest), scales).tolist(), strict=True)
    i, j = np.array(pairs, int).reshape(-1, 2).T
    return pd.DataFrame(
        {
            "dataset": ours.name,
            "id_str": [ours.ids[k] for k in i],
            "split": [ours.splits[k] for k in i],
            "other_dataset": theirs.name,
            "other_id_str": [theirs.ids[k] for k in j],
            "other_split": [theirs.splits[k] for k in j],
            "how": ["+".join(how[pair]) for pair in pairs],
            "similarity": [similarity.get(pair, np.nan) for pair in pairs],
        }
    ).astype({"how": str})  # also where there is no pair


def check_scales(scales: tuple[float, float]) -> None:
    """Refuse a range of ratios that is not one.

    Raises:
        BadInput: names the option.
    """
    if not 1 / 20 <= scales[0] <= scales[1] <= 20:
        raise BadInput(
            f"--scales {scales[0]:g} {scales[1]:g}: must be the smallest and the largest ratio of the fields, in [0.05, 20]"
        )
