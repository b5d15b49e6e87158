"""The law c + a D^-b fitted to runs, and the region of all laws that the runs do not exclude.

    loss = (c + a D^-b) (1 + seed + noise),    standard deviation of the noise: s (D / middle)^-g

Runs often scatter less with more galaxies, so the noise is a power of D. g is that of the largest restricted likelihood (REML),
drawn towards 0, a constant noise, by a normal prior. Runs of a seed share a factor, which is fitted. For a fixed b the law is
linear in a and c, so b is scanned, and the rest is exact: there is no starting point. Coefficients are at least 0.

The region holds each law whose sum of squares exceeds the least one by at most t^2 s^2, with Student's t: the profile likelihood
(Bates and Watts 1988, "Nonlinear regression analysis and its applications", chapter 6). The interval of any function of the law
lies between its extremes in the region.

Legend: n runs, S seeds, K exponents, C coefficients (a, and c where it is fitted), N laws.
"""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from hf_galaxy.scaling.fitting import EXPONENTS

GRID, CLOSER, ROUNDS = 121, 9, 5  # exponents tried first; in each round around the best; rounds
NOISE_POWERS = np.linspace(-1.0, 1.5, 26)
PRIOR = 0.5  # standard deviation of the prior of the noise's power
FEW = 6  # degrees of freedom, below which the noise is taken as constant
OUTLIER = 2.0  # in units of the scatter: what a residual is beyond it does not count
FITS = 4  # rounds in which noise, outliers and law are fitted in turn
SLICES, ANGLES = 41, 32  # exponents of the region; directions in which its ends are sought for each


@dataclass(frozen=True, eq=False)
class Weighted:
    """Relative losses with equal noise: for each exponent a linear problem, from which the factors of seeds are eliminated.

    Attributes:
        logs: (n,) logarithms of the galaxies over those in the middle.
        weights: (n,) one over the noise, relative to that in the middle.
        scale: (n,) the same over the law, which losses are relative to.
        root: (n, n) makes the noise independent: losses and columns are multiplied by it.
        target: (n,) losses times `scale`, outliers drawn in, times `root`.
        floor: whether there is a c.
    """

    logs: np.ndarray
    weights: np.ndarray
    scale: np.ndarray
    root: np.ndarray
    target: np.ndarray
    floor: bool

    def with_common(self, covariance: np.ndarray) -> "Weighted":
        """The same with what all losses have in common: a factor, and a power of the galaxies, of random size.

        Args:
            covariance: (2, 2) of the factor and of the power, in units of the variance of the noise.
        """
        common = self.root @ (np.stack([np.ones_like(self.logs), self.logs], axis=1) * self.weights[:, None])
        values, vectors = np.linalg.eigh(common @ covariance @ common.T)
        root = (vectors / np.sqrt(1 + np.maximum(values, 0))) @ vectors.T
        return dataclasses.replace(self, root=root @ self.root, target=root @ self.target)

    def columns(self, exponents: np.ndarray) -> np.ndarray:
        """(K, n, C): what the coefficients multiply."""
        falling = np.exp(-np.multiply.outer(exponents, self.logs))
        columns = np.stack([falling, np.ones_like(falling)] if self.floor else [falling], axis=-1) * self.scale[:, None]
        return self.root @ columns

    def normal(self, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K, C, C) and (K, C): the matrix and the right side of the normal equations."""
        columns = self.columns(exponents)
        return np.swapaxes(columns, -1, -2) @ columns, self.target @ columns

    def solve(self, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K, C) the best coefficients, none below 0, and (K,) the sums of squares that they leave."""
        gram, right = self.normal(exponents)
        coefficients = non_negative(gram, right)
        return coefficients, squares_of(gram, right, coefficients, self.target @ self.target)

    def best(self, rounds: int = ROUNDS) -> tuple[float, np.ndarray, float]:
        """The best exponent, its coefficients, and the sum of squares."""
        tried = np.geomspace(*EXPONENTS, GRID)
        step = np.log(tried[1] / tried[0])
        for _ in range(rounds + 1):
            coefficients, squares = self.solve(tried)
            k = squares.argmin()
            found = float(tried[k]), coefficients[k], float(squares[k])
            tried = np.clip(found[0] * np.exp(step * np.linspace(-1, 1, CLOSER)), *EXPONENTS)
            step *= 2 / (CLOSER - 1)
        return found


def non_negative(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(..., C) coefficients of at least 0 with the least squares, for one or two coefficients."""
    alone = np.maximum(right / np.diagonal(gram, axis1=-2, axis2=-1), 0)
    if right.shape[-1] == 1:
        return alone
    both = np.linalg.solve(_regular(gram), right[..., None])[..., 0]
    gains = alone * right  # by which each coefficient alone lowers the squares
    alone = np.where(np.arange(2) == gains.argmax(axis=-1)[..., None], alone, 0)
    inside = np.asarray((both >= 0).all(axis=-1))
    return np.where(inside[..., None], both, alone)


def squares_of(gram: np.ndarray, right: np.ndarray, coefficients: np.ndarray, total: float | np.ndarray) -> np.ndarray:
    """(...,) sums of squares that coefficients leave of a total."""
    fitted = (gram @ coefficients[..., None])[..., 0]
    return np.maximum(total - (coefficients * (2 * right - fitted)).sum(axis=-1), 0)


def _regular(gram: np.ndarray) -> np.ndarray:
    # With a single number of galaxies all columns are alike; otherwise this small a share changes nothing.
    return gram + 1e-13 * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] * np.eye(gram.shape[-1])


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs without their losses, of which a linear problem is made.

    Attributes:
        logs: (n,) logarithms of the galaxies over those in the middle.
        law: (n,) to which losses are relative.
        factors: (n, S - 1) columns of the factors of seeds, or (n, 0).
        floor: whether there is a c.
    """

    logs: np.ndarray
    law: np.ndarray
    factors: np.ndarray
    floor: bool

    def weighted(self, relative: np.ndarray, power: float) -> Weighted:
        """The problem of (n,) or (R, n) relative losses whose noise is this power of the galaxies."""
        weights = np.exp(power * self.logs)
        basis = np.linalg.qr(self.factors * weights[:, None])[0]
        root = np.eye(len(weights)) - basis @ basis.T
        return Weighted(self.logs, weights, weights / self.law, root, relative * weights @ root, self.floor)

    def noise_power(self, relative: np.ndarray, exponent: float, coefficients: np.ndarray) -> np.ndarray:
        """(R,) the power of the largest restricted likelihood, times its prior, of (R, n) relative losses, with the law linear about one."""
        falling = np.exp(-exponent * self.logs) / self.law
        columns = [falling, *([1 / self.law] if self.floor else []), self.logs * falling]
        columns = np.column_stack([*columns, self.factors])
        weights = np.exp(np.multiply.outer(NOISE_POWERS, self.logs))
        q, r = np.linalg.qr(columns / np.linalg.norm(columns, axis=0) * weights[..., None])
        targets = relative[:, None] * weights  # (R, powers, n)
        fitted = np.swapaxes(targets, 0, 1) @ q  # (powers, R, columns)
        squares = (targets**2).sum(axis=-1) - (fitted**2).sum(axis=-1).T
        free = len(self.logs) - columns.shape[1]
        volume = np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1)) + 1e-300).sum(axis=-1)
        likelihood = np.log(weights).sum(axis=-1) - volume - free / 2 * np.log(np.maximum(squares, 1e-20))
        return NOISE_POWERS[(likelihood - (NOISE_POWERS / PRIOR) ** 2 / 2).argmax(axis=-1)]


@dataclass(frozen=True, eq=False)
class Profile:
    """A fitted law, and how well all others fit.

    Attributes:
        middle: the geometric mean of the galaxies, the unit of `law`.
        law: a, b, c of c + a (D / middle)^-b.
        noise: s, the relative standard deviation of runs on `middle` galaxies about the law.
        noise_power: g.
        fits_noise: whether g was fitted; of few runs it is 0.
        free: degrees of freedom of the noise.
        seeds: standard error of the mean factor of the seeds, and its degrees of freedom; 0 where seeds have nothing in common.
        runs, problem: the runs and their linear problem.
        residuals: (n,) over the noise, outliers drawn in.
    """

    middle: float
    law: tuple[float, float, float]
    noise: float
    noise_power: float
    fits_noise: bool
    free: int
    seeds: tuple[float, int]
    runs: Runs = field(repr=False)
    problem: Weighted = field(repr=False)
    residuals: np.ndarray = field(repr=False)

    def noise_at(self, galaxies: float | np.ndarray) -> float | np.ndarray:
        """Relative standard deviation of runs on this number of galaxies about the law."""
        return self.noise * (galaxies / self.middle) ** -self.noise_power

    def region(self, level: float, test_galaxies: np.ndarray | None = None) -> np.ndarray:
        """(N, 3) laws a, b, c on the edge of the region: the interval of a function lies between its extremes on them.

        Args:
            test_galaxies: (2, 2) covariance of a relative factor and of a power of D / middle that all losses have in common, by
                the choice of test galaxies; then seeds, too, are taken as a choice. None: they are given, as those of runs to be
                predicted are.
        """
        if level <= 0:
            return self._in_galaxies(np.array([self.law]))
        t, problem = student_t(self.free, level), self.problem
        if test_galaxies is not None:
            # Known to other accuracy than the noise is, so in units of their own quantiles.
            common = test_galaxies * student_t(np.inf, level) ** 2
            error, free = self.seeds
            common = common + np.diag([(error and error * student_t(free, level)) ** 2, 0])
            problem = problem.with_common(common / (t * self.noise) ** 2)
        best, _, least = problem.best()
        most = least + (t * self.noise) ** 2
        exponents = np.append(np.geomspace(*_ends(problem, best, most), SLICES), best)
        points = _on_ellipses(*problem.normal(exponents), problem.target @ problem.target, most)
        a, c = points[..., 0], points[..., 1] if problem.floor else np.zeros_like(points[..., 0])
        laws = np.stack([a, np.broadcast_to(exponents[:, None], a.shape), c], axis=-1)
        laws = laws[((a >= 0) & (c >= 0))]  # NaN is not
        return self._in_galaxies(np.concatenate([laws, [self.law]]))

    def _in_galaxies(self, laws: np.ndarray) -> np.ndarray:
        """(N, 3) laws in units of `middle` galaxies, in galaxies."""
        a, b, c = laws.T
        return np.stack([a * self.middle**b, b, c], axis=1)


def _ends(problem: Weighted, best: float, most: float) -> tuple[float, float]:
    """The smallest and the largest exponent that leave at most this sum of squares."""
    grid = np.geomspace(*EXPONENTS, GRID)
    within = problem.solve(grid)[1] <= most
    lower, upper = grid[within & (grid < best)], grid[within & (grid > best)]
    low, high = lower.min(initial=best), upper.max(initial=best)
    outside = grid[grid < low], grid[grid > high]
    return (
        _crossing(problem, low, outside[0].max(), most) if len(outside[0]) else float(low),
        _crossing(problem, high, outside[1].min(), most) if len(outside[1]) else float(high),
    )


def _crossing(problem: Weighted, inside: float, outside: float, most: float) -> float:
    """Where the sum of squares passes `most`, between two exponents."""
    for _ in range(4):
        tried = np.geomspace(inside, outside, CLOSER)
        beyond = problem.solve(tried)[1] > most
        k = max(1, int(beyond.argmax())) if beyond.any() else CLOSER - 1
        inside, outside = tried[k - 1], tried[k]
    return float(inside)


def _on_ellipses(gram: np.ndarray, right: np.ndarray, total: float, most: float) -> np.ndarray:
    """(K, P, C) coefficients that leave the sum of squares `most`, in all directions and where one of them is 0; else NaN."""
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    alone = right / diagonal
    with np.errstate(invalid="ignore"):
        half = np.sqrt((most - total + alone * right) / diagonal)  # NaN where the axis is outside
        if right.shape[-1] == 1:
            return np.stack([np.maximum(alone - half, 0), alone + half], axis=1)
        centre = np.linalg.solve(_regular(gram), right[..., None])[..., 0]
        radius = np.sqrt(np.maximum(most - total + (centre * right).sum(axis=-1), 0))
        angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
        circle = np.stack([np.cos(angles), np.sin(angles)])
        around = np.linalg.solve(np.swapaxes(np.linalg.cholesky(_regular(gram)), -1, -2), circle)
        points = centre[:, None] + radius[:, None, None] * np.swapaxes(around, -1, -2)
        axes = [np.stack([ends, np.zeros_like(ends)][::order], axis=-1) for j, order in ((0, 1), (1, -1))
                for ends in (alone[:, j] - half[:, j], alone[:, j] + half[:, j])]  # fmt: skip
    return np.concatenate([points, np.stack(axes, axis=1)], axis=1)


def lack_of_fit(profile: Profile, sizes: np.ndarray) -> float | None:
    """p of the test that mean losses differ from the law by no more than runs on equally many galaxies differ (Fisher's F).

    None where there are too few runs of a size, or sizes, for a test.
    """
    from scipy.stats import f

    problem, law = profile.problem, profile.law
    own = (sizes[:, None] == np.unique(sizes)) * problem.scale[:, None]
    own, target = problem.root @ own, problem.target
    pure = float(((target - own @ np.linalg.lstsq(own, target, rcond=None)[0]) ** 2).sum())
    parameters = 2 * int(law[0] > 0) + int(law[2] > 0)  # without a, b says nothing
    more, free = own.shape[1] - parameters, round(np.trace(problem.root)) - own.shape[1]
    if more < 1 or free < 2 or pure <= 0:
        return None
    _, squares = problem.solve(np.array([law[1]]))
    return float(f.sf(max(0.0, squares[0] - pure) / more / (pure / free), more, free))


def student_t(free: float, level: float) -> float:
    """Between minus this number and it lies `level` of Student's t with `free` degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, free))


def fit_profile(sizes: np.ndarray, losses: np.ndarray, seeds: np.ndarray, floor: bool) -> Profile:
    """Fit the law to (n,) losses of runs with these (n,) numbers of galaxies and (n,) seeds."""
    middle = float(np.exp(np.log(sizes).mean()))
    logs = np.log(sizes / middle)
    parameters = 2 + floor
    factors = _seed_columns(seeds, parameters)
    free = max(1, len(losses) - parameters - factors.shape[1])
    fits_noise = free >= FEW
    free -= fits_noise
    law, relative, power = losses, np.ones_like(losses), 0.0
    fit: tuple[float, np.ndarray, float] | None = None
    for rounds in (*[1] * (FITS - 1), ROUNDS):
        runs = Runs(logs, law, factors, floor)
        if fit and fits_noise:
            power = float(runs.noise_power(relative[None], *fit[:2])[0])
        problem = runs.weighted(relative, power)
        b, coefficients, squares = fit = problem.best(rounds)
        fitted = np.exp(-b * logs) * coefficients[0] + (coefficients[1] if floor else 0)
        weighted = factors * problem.weights[:, None]
        effects = np.linalg.lstsq(weighted, (relative - fitted / law) * problem.weights, rcond=None)[0]
        with_seeds = fitted + law * (factors @ effects)
        law = np.maximum(fitted, 1e-9 * losses.max())
        residuals = _without_outliers((losses - with_seeds) / law * problem.weights, free)
        relative = with_seeds / law + residuals / problem.weights
    noise = max(squares / free, 1e-20) ** 0.5
    a, c = float(coefficients[0]), float(coefficients[1]) if floor else 0.0
    of_seeds = _error_of_seeds(seeds, effects, problem.weights, noise)
    return Profile(middle, (a, b, c), noise, power, fits_noise, free, of_seeds, runs, problem, residuals / noise)


def _seed_columns(seeds: np.ndarray, parameters: int) -> np.ndarray:
    """(n, S - 1) columns of factors that runs of a seed share and that add up to 0; none where there are too few runs for it."""
    names, which = np.unique(seeds, return_inverse=True)
    n, count = len(seeds), len(names)
    if not 1 < count < n or n - parameters - (count - 1) < 2:
        return np.zeros((n, 0))
    member = (which[:, None] == np.arange(count)).astype(float)
    return member[:, :-1] - member[:, -1:]


def _without_outliers(residuals: np.ndarray, free: int) -> np.ndarray:
    """Residuals drawn in to `OUTLIER` times their scatter, and enlarged to leave its estimate unbiased (Huber's pseudo-values)."""
    scatter = 1.4826 * np.median(np.abs(residuals)) * (len(residuals) / free) ** 0.5
    if scatter <= 0:
        return residuals
    kept = np.abs(residuals) <= OUTLIER * scatter
    return np.clip(residuals, -OUTLIER * scatter, OUTLIER * scatter) / kept.mean()


def _error_of_seeds(seeds: np.ndarray, effects: np.ndarray, weights: np.ndarray, noise: float) -> tuple[float, int]:
    """Standard error of the mean factor of the seeds, and its degrees of freedom.

    The factors differ by what seeds have in common and by noise, which is in the noise of the law already.
    """
    if not len(effects):
        return 0.0, 0
    effects = np.append(effects, -effects.sum())
    by_noise = noise**2 / np.bincount(np.unique(seeds, return_inverse=True)[1], weights**2)
    variance = max(0.0, effects.var(ddof=1) - by_noise.mean())
    return (variance / len(effects)) ** 0.5, len(effects) - 1
