"""Galaxies that stand in two datasets: found by name, by place in the sky, and by picture, however it is framed.

Legend of shapes: N galaxies, M pairs, R ratios, S side of the standard picture, n side of a cut.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image

from hf_galaxy.data.dataset import open_dataset
from hf_galaxy.data.pictures import open_picture, to_rgb
from hf_galaxy.data.targets import tables_of
from hf_galaxy.errors import BadInput
from hf_galaxy.progress import progress
from hf_galaxy.publishing.duplicates import ALIKE, SAME_GALAXY_ARCSEC, pairs_on_the_sky

SIDE = 192  # S: every picture is decoded to this many pixels
SHOWN = 0.6  # share of the narrower of two fields that is compared; the rest is room for galaxies that are not quite central
COARSE, FINE = 16, 48  # n, pixels
STEP = 1.12  # between ratios that are tried at first: at the edge of a cut half a coarse pixel
CLOSER = 5  # ratios that are tried within each such step
CANDIDATES = 3  # for each galaxy of the smaller dataset
LEAST = 20  # pixels of the original across a cut: fewer, blown up, show how they were blown up and not what they are of
HINT, SHIFT = 0.5, 3  # what is so alike at first is looked at still closer; fine pixels to each side that are tried
BLOCK = 2048  # pictures in memory at the same time


class Listing:
    """The galaxies of all splits of a dataset: what they are called, where they are, and their pictures.

    Args:
        name: a folder or Hub id.
        config: one of its configurations; None: its default.
        also: columns that hold names of the same galaxies in other catalogues; those that it lacks are passed over.

    Attributes:
        ids, splits: (N,) of each galaxy.
        names: of each galaxy all names that it goes by.
        positions: (N, 2) right ascension and declination in degrees, NaN where not known.
        unreadable: numbers of galaxies whose pictures were tried and cannot be decoded.

    Raises:
        BadInput: it cannot be opened.
    """

    def __init__(self, name: str, config: str | None = None, also: Collection[str] = ()):
        self.name, self.unreadable = name, set()
        opened = open_dataset(name, config)
        self.columns = set(next(iter(opened.values())).column_names)
        also = [column for column in also if column in self.columns]
        sky = ["ra", "dec"] if {"ra", "dec"} <= self.columns else []
        self.splits, self.names, positions = [], [], [np.empty((0, 2))]
        for split, rows in opened.items():
            for table in tables_of(rows, ["id_str", *also, *sky]):
                self.splits += [split] * len(table)
                self.names += list(zip(*(table[column].to_pylist() for column in ["id_str", *also]), strict=True))
                if sky:
                    positions.append(np.stack([table[c].cast(pa.float64()).to_numpy() for c in sky], axis=1))
        self.ids = [names[0] for names in self.names]
        self.names = [{str(name) for name in names if name is not None and name != ""} for names in self.names]
        self.positions = np.concatenate(positions) if sky else np.full((len(self.ids), 2), np.nan)
        self.parts = [rows.select_columns(["image"]).with_format("arrow") for rows in opened.values()]
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self):
        return len(self.ids)

    def pictures(self, galaxies: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, S, S) uint8, the middle square of some galaxies' pictures in grey, and (n,) its side in the original.

        Args:
            galaxies: growing numbers. A picture that cannot be decoded is black, of side 0.
        """
        contents = []
        for rows, first, end in zip(self.parts, self.starts, self.starts[1:], strict=False):
            here = galaxies[(galaxies >= first) & (galaxies < end)] - first
            if len(here):
                contents += rows[here.tolist()]["image"].combine_chunks().field("bytes").to_pylist()
        squares, sides = np.zeros((len(contents), SIDE, SIDE), np.uint8), np.zeros(len(contents), np.float32)
        for i, content in enumerate(contents):
            try:
                squares[i], sides[i] = _square(content)
            except Exception:  # decoders raise many kinds
                self.unreadable.add(int(galaxies[i]))
        return torch.from_numpy(squares), torch.from_numpy(sides)


def _square(content: bytes | None) -> tuple[Image.Image, int]:
    picture = open_picture(content)
    picture.draft("L", (SIDE, SIDE))  # a JPEG's brightness alone, and of a large one no more than is needed
    width, height = original = picture.size
    side = min(original)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return to_rgb(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box), side


def same_names(ours: Listing, theirs: Listing) -> np.ndarray:
    """(M, 2) pairs of galaxies that go by a common name."""
    called = defaultdict(list)
    for j, names in enumerate(theirs.names):
        for name in names:
            called[name].append(j)
    pairs = {(i, j) for i, names in enumerate(ours.names) for name in names for j in called.get(name, ())}
    return np.array(sorted(pairs), dtype=int).reshape(-1, 2)


def same_places(ours: Listing, theirs: Listing, arcsec: float = SAME_GALAXY_ARCSEC) -> np.ndarray:
    """(M, 2) pairs of galaxies within `arcsec` of each other; none, if a dataset has no columns ra and dec."""
    pairs = np.sort(pairs_on_the_sky(np.concatenate([ours.positions, theirs.positions]), arcsec), axis=1)
    across = (pairs[:, 0] < len(ours)) & (pairs[:, 1] >= len(ours))
    return pairs[across] - [0, len(ours)]


def same_pictures(
    ours: Listing, theirs: Listing, scales: tuple[float, float] = (1 / 3, 3), alike: float = ALIKE
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (M, 2) of galaxies with the same picture, and (M,) how alike: more than `alike`.

    The one picture may show a wider field than the other, in other pixels, in grey, and encoded otherwise; not turned or
    mirrored. Each galaxy of the smaller dataset is compared with all of the larger at 16 x 16 pixels, as if either showed
    the wider field by each of some ratios; with the three that are most like it, `similarities` looks closer.

    Time grows with the product of both numbers, memory with the smaller: 11 kB a galaxy with these scales.

    Args:
        scales: least and most ratio of the width of their fields to ours.
    """
    if len(ours) > len(theirs):
        pairs, similar = same_pictures(theirs, ours, (1 / scales[1], 1 / scales[0]), alike)
        return pairs[:, ::-1], similar
    ratios = _ratios(scales)
    described = [_described(squares, ratios, 0) for _, squares, _ in _blocks(ours, f"describing {ours.name}")]
    small = {share: torch.cat([of_block[share] for of_block in described]) for share in described[0]}
    del described
    most, which = torch.empty(len(ours), 0), torch.empty(len(ours), 0, dtype=torch.int64)
    for first, squares, _ in _blocks(theirs, f"comparing with {theirs.name}"):
        large = _described(squares, ratios, 1)
        kept = [], []
        for i in range(0, len(ours), 256):  # few enough to stay in the processor's cache
            products = torch.full((len(most[i : i + 256]), len(squares)), -1.0)
            for ratio in ratios:
                one, other = _shares(ratio)
                torch.maximum(products, small[one][i : i + 256] @ large[other].T, out=products)
            for values, here in zip(kept, products.topk(min(CANDIDATES, len(squares)), dim=1), strict=True):
                values.append(here)
        most, which = torch.cat([most, torch.cat(kept[0])], 1), torch.cat([which, torch.cat(kept[1]) + first], 1)
        most, best = most.topk(min(CANDIDATES, most.shape[1]), dim=1)
        which = which.gather(1, best)
    pairs = np.stack([np.repeat(np.arange(len(ours)), which.shape[1]), which.numpy().ravel()], axis=1)
    similar = similarities(ours, theirs, pairs, scales)
    return pairs[similar > alike], similar[similar > alike]


def similarities(
    ours: Listing, theirs: Listing, pairs: np.ndarray, scales: tuple[float, float] = (1 / 3, 3)
) -> np.ndarray:
    """(M,) how alike the pictures of some pairs are: the correlation of their fine structure where they fit best.

    Fine structure is what is between 0.7 and 2 pixels large at 48 x 48 pixels, everywhere as strong as in its
    surroundings: two edge-on galaxies have the same outline, but not the same stars and noise around them. The middle of
    the narrower field is compared, at ratios 3 % apart and up to three pixels off centre.

    Measured on public sets of SDSS pictures: all of 11 galaxies in both Galaxy Zoo 1 and 2 (160 px beside 212 px, fields
    that are 1.1 to 1.5 times as wide) reach 0.93; none of the other candidates is above 0.60. Of 5,000 pictures and
    28,793 whose frame is 0.6 as wide, 2,391 pairs have one name: all of them, and no others, are above 0.88. Where no name
    helps, 6,664 beside 28,793, there are 279 pairs above 0.87, none down to 0.79, and a tail of others below: hence ALIKE.
    Without evening out the surroundings, edge-on galaxies reached 0.82 with others.

    Returns:
        Float32 in [-1, 1]; 0 for a picture that is unreadable, of one brightness, or less than LEAST pixels wide where
        both overlap.
    """
    ratios, result = _ratios(scales), np.zeros(len(pairs), np.float32)
    if not len(pairs):
        return result
    order = np.lexsort(pairs.T[::-1])
    with progress(total=len(pairs), desc="looking closer", unit=" pairs") as show:
        for first in range(0, len(pairs), BLOCK // 4):
            of_pairs = order[first : first + BLOCK // 4]
            sides = [_side(*each) for each in zip((ours, theirs), pairs[of_pairs].T, strict=True)]
            result[of_pairs] = _closer(*sides, ratios)
            show.update(len(of_pairs))
    return result


def _side(listing, galaxies):
    """The pictures of one side of some pairs, the widths of the originals, and which picture is whose."""
    different, place = np.unique(galaxies, return_inverse=True)
    return *listing.pictures(different), torch.from_numpy(place)


def _closer(one, other, ratios):
    (our, our_width, i), (their, their_width, j) = one, other
    rough_our, rough_their = _described(our, ratios, 0), _described(their, ratios, 1)
    rough = [(rough_our[a][i] * rough_their[b][j]).sum(1) for a, b in map(_shares, ratios)]
    nearest = torch.stack(rough).argmax(0)
    finer = STEP ** (np.arange(CLOSER) / (CLOSER - 1) - 0.5)

    def best(of_pairs, finer, parts):
        found = torch.zeros(len(i))
        for k in nearest[of_pairs].unique().tolist():
            here = of_pairs[nearest[of_pairs] == k]
            for ratio in ratios[k] * finer:
                a, b = _shares(ratio)
                known = (our_width[i[here]] * a >= LEAST) & (their_width[j[here]] * b >= LEAST)
                products = _shifted(_structure(our[i[here]], a), _structure(their[j[here]], b), parts)
                found[here] = torch.maximum(found[here], products * known)
        return found

    alike = best(torch.arange(len(i)), finer[::2], 1)
    return torch.maximum(alike, best((alike > HINT).nonzero().flatten(), finer, 2)).numpy()


def _shifted(x, y, parts):
    """The greatest correlation of maps that lie up to SHIFT pixels beside each other, in steps of a pixel or parts of it."""
    half, whole = x.shape[1] // 2, parts * x.shape[1]
    products = torch.fft.rfft2(x) * torch.fft.rfft2(y).conj()
    padded = products.new_zeros(len(x), whole, whole // 2 + 1)  # zeros for what the maps do not resolve interpolate
    padded[:, :half, : half + 1], padded[:, -half:, : half + 1] = products[:, :half], products[:, half:]
    products = torch.fft.irfft2(padded, s=(whole, whole)) * parts**2
    reach = SHIFT * parts
    return torch.roll(products, (reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1].flatten(1).amax(1)


def _ratios(scales):
    """Of the widths of two fields, from the least to the most, STEP apart at most."""
    steps = int(np.ceil(np.log(scales[1] / scales[0]) / np.log(STEP)))
    return np.geomspace(scales[0], scales[1], steps + 1).tolist()


def _shares(ratio):
    """Of the sides of our and their picture, what to cut, if their field is wider by this ratio."""
    return SHOWN * min(1, ratio), SHOWN * min(1, 1 / ratio)


def _blocks(listing, what) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    with progress(total=len(listing), desc=what, unit=" galaxies") as show:
        for first in range(0, len(listing), BLOCK):
            galaxies = np.arange(first, min(first + BLOCK, len(listing)))
            yield first, *listing.pictures(galaxies)
            show.update(len(galaxies))


def _described(squares, ratios, side):
    """Share of the side -> (n, COARSE * COARSE) of unit length: what is in such a cut, roughly."""
    shares = dict.fromkeys(_shares(ratio)[side] for ratio in ratios)
    found = {share: [] for share in shares}
    for some in squares.split(256):
        halved = F.avg_pool2d(some[:, None].float(), 2)[:, 0]
        for share, parts in found.items():
            rough = _bright(_cut(halved, share, COARSE)).flatten(1)
            rough -= rough.mean(1, keepdim=True)
            parts.append(rough / rough.norm(dim=1, keepdim=True).clamp(min=0.01))  # one brightness: zeros
    return {share: torch.cat(parts) for share, parts in found.items()}


def _structure(squares, share):
    """(n, FINE, FINE) of unit length: the fine structure in the middle of pictures."""
    cut = _bright(_cut(squares.float(), share, FINE))
    detail = _blurred(cut, 0.7) - _blurred(cut, 2)
    detail /= _blurred(detail**2, 3).clamp(min=0).sqrt() + 0.01
    detail -= detail.mean((1, 2), keepdim=True)
    return detail / detail.flatten(1).norm(dim=1).clamp(min=1)[:, None, None]  # some 48, but for one brightness


def _bright(pixels):
    return torch.asinh(pixels / 10)  # bright cores do not drown the rest


def _cut(squares, share, pixels):
    """(n, pixels, pixels): the middle of pictures, scaled by weights that fall off linearly to both sides."""
    whole = squares.shape[1]
    step = share * whole / pixels
    first = max(0, int((1 - share) / 2 * whole - step - 1))
    middle = squares[:, first : whole - first, first : whole - first]
    centres = whole / 2 - first + (torch.arange(pixels) + 0.5 - pixels / 2) * step
    distances = (torch.arange(middle.shape[1]) + 0.5 - centres[:, None]).abs()
    weights = (1 - distances / max(step, 1)).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    return weights @ middle @ weights.T


def _blurred(maps, sigma):
    places = torch.arange(maps.shape[1])
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    return weights @ maps @ weights.T


def overlap(
    ours: Listing,
    theirs: Listing,
    arcsec: float = SAME_GALAXY_ARCSEC,
    scales: tuple[float, float] = (1 / 3, 3),
    alike: float = ALIKE,
    pictures: bool = True,
) -> pd.DataFrame:
    """The galaxies of ours that are among theirs, a row for each pair.

    Args:
        arcsec: closer, two are one.
        scales: as in `same_pictures`.
        alike: more so, two pictures are one.
        pictures: whether to compare pictures.

    Returns:
        Columns dataset, id_str, split, other_dataset, other_id_str, other_split; how, of name, position and picture
        those by which the pair was found, joined by +; similarity of the pictures, NaN if they were not compared.
    """
    ways = {"name": same_names(ours, theirs), "position": same_places(ours, theirs, arcsec)}
    similarity = {}
    if pictures and len(ours) and len(theirs):
        ways["picture"], similar = same_pictures(ours, theirs, scales, alike)
        similarity = dict(zip(map(tuple, ways["picture"].tolist()), similar.tolist(), strict=True))
    how = defaultdict(list)
    for way, pairs in ways.items():
        for pair in pairs.tolist():
            how[tuple(pair)].append(way)
    pairs = sorted(how)
    if pictures:
        rest = [pair for pair in pairs if pair not in similarity]
        of_rest = similarities(ours, theirs, np.array(rest, int).reshape(-1, 2), scales)
        similarity |= zip(rest, of_rest.tolist(), strict=True)
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
            "similarity": [similarity[pair] if pictures else np.nan for pair in pairs],
        }
    ).astype({"how": str})  # also where there is none


def check_scales(scales: tuple[float, float]) -> None:
    """Refuse ratios that are none.

    Raises:
        BadInput: names the setting.
    """
    if not 1 / 20 <= scales[0] <= scales[1] <= 20:
        raise BadInput(
            f"--scales {scales[0]:g} {scales[1]:g}: the least ratio of the fields and the most, in [0.05, 20]"
        )
