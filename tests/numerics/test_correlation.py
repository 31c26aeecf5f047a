from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from tensorscope_nb.numerics.correlation import along_depth, majority_p, within_kinds, within_layers

R = 2000  # simulated problems: a size of .05 is known to .005


def table(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def residuals(values, *columns):
    """What least squares leaves of values on columns, one at a time taken as they come."""
    design = np.stack(columns, 1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def dummies(labels):
    return [(labels == label).astype(float) for label in np.unique(labels)]


def p_of(r, df):
    with np.errstate(divide="ignore"):  # a correlation of 1
        return 2 * stats.t.sf(abs(r) * np.sqrt(df / (1 - r**2)), df)


def test_series_follow_the_formula_computed_by_a_plain_loop():
    depth = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13])
    for seed in range(4):
        a, b = table(2, 12, seed=seed) + 0.3 * depth
        a[3] = a[4]  # equal values share a rank
        found = along_depth(a, b, depth)
        assert np.isclose(found.rho, stats.spearmanr(a, b).statistic)
        autocorrelations, left = [], []
        for values in (a, b):
            ranks = stats.rankdata(values)
            e = ranks - np.polyval(np.polyfit(depth, ranks, 2), depth)
            r1 = sum(e[i] * e[i + 1] for i in range(11)) / sum(x * x for x in e)
            autocorrelations.append(min(max(r1 + 1.5 * (1 + 4 * r1) / 12, 0), 0.99))
            left.append(e)
        ab = autocorrelations[0] * autocorrelations[1]
        n_eff = 12 * (1 - ab) / (1 + ab) - 2
        r = np.corrcoef(*left)[0, 1]
        assert np.isclose(found.partial, r) and np.isclose(found.n_eff, n_eff) and np.isclose(found.p, p_of(r, n_eff - 2))
    values = along_depth(a, b, depth, ranks=False)
    assert np.isclose(values.rho, np.corrcoef(a, b)[0, 1])
    left = [residuals(x, np.ones(12), depth, depth**2) for x in (a, b)]
    assert np.isclose(values.partial, np.corrcoef(*left)[0, 1])


def test_below_eight_layers_there_is_rho_alone():
    found = along_depth(*table(2, 7))
    assert np.isfinite(found.rho) and np.isnan([found.partial, found.n_eff, found.p]).all()
    assert np.isfinite(along_depth(*table(2, 8)).partial)


def test_nothing_is_left_of_what_depth_explains_wholly():
    """Ranks that rise with every layer are a straight line: what rounding leaves of them is no correlation."""
    rising, noise = np.exp(np.arange(12.0)), table(12)
    found = along_depth(rising, noise)
    assert np.isfinite(found.rho) and np.isnan([found.partial, found.n_eff, found.p]).all()
    constant = along_depth(np.full(12, 0.1), noise)
    assert np.isnan([constant.rho, constant.partial, constant.p]).all()
    layers = np.repeat([1.0, 2.0, 3.0], 4).reshape(3, 4)
    assert np.isnan(within_layers(layers, table(3, 4)).partial)
    kinds = np.arange(5.0)[:, None] * 100 + np.arange(10.0) + np.zeros((5, 1))
    assert np.isnan(within_kinds(kinds, table(5, 10)).partial)


def alike(e_a, e_b, layer, n_heads):
    """γ of within_layers, by plain loops over a balanced table."""
    found = expected = 0.0
    n_layers = layer.max() + 1
    for i, j in product(range(n_layers), repeat=2):
        if i != j:
            found += sum(e_a[layer == i] * e_b[layer == j]) ** 2
            expected += sum(e_a[layer == i] ** 2) * sum(e_b[layer == j] ** 2) / (n_heads - 1)
    factors = []
    for e in (e_a, e_b):
        r = sum(e[i] * e[i + 1] for i in range(len(e) - 1) if layer[i] == layer[i + 1]) / sum(e**2)
        factors.append(min(max((r + 1 / n_heads) * n_heads / (n_heads - 1), 0), 0.99))
    ab = factors[0] * factors[1]
    return min((1 - ab) / (1 + ab), expected / found)


def test_heads_are_a_partial_correlation_whose_variance_is_that_of_every_exchange_within_layers():
    layer = np.repeat([0, 1, 2], 3)
    for seed in range(5):
        a, b = table(2, 3, 3, seed=seed)
        a[1] += 2  # a layer that stands out, and one that spreads more
        b[2] *= 5
        found = within_layers(a, b)
        ranks = [stats.rankdata(x) for x in (a, b)]
        assert np.isclose(found.rho, stats.spearmanr(a.ravel(), b.ravel()).statistic)
        e_a, e_b = (residuals(x, *dummies(layer)) for x in ranks)
        assert np.isclose(found.partial, np.corrcoef(e_a, e_b)[0, 1])
        exchanged = [
            np.corrcoef(e_a, np.concatenate([e_b[3 * i + np.array(order)] for i, order in enumerate(orders)]))[0, 1]
            for orders in product(permutations(range(3)), repeat=3)
        ]
        n_eff = alike(e_a, e_b, layer, 3) / np.mean(np.square(exchanged)) + 1
        assert np.isclose(found.n_eff, n_eff)
        assert np.isclose(found.p, p_of(found.partial, n_eff - 2)) if n_eff >= 3 else np.isnan(found.p)


def test_heads_of_one_layer_without_likeness_are_the_plain_spearman():
    a, b = np.array([[3.0, 1, 4, 2, 6, 5]]), np.array([[2.0, 5, 1, 6, 3, 4]])
    found, expected = within_layers(a, b), stats.spearmanr(a[0], b[0])
    assert found.n_eff == pytest.approx(6) and found.partial == found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_heads_that_are_missing_are_left_out_of_ranks_and_means():
    a, b = table(2, 4, 5)
    a[1, 2:] = b[1, 2:] = np.nan
    seen = np.isfinite(a)
    layer = np.nonzero(seen)[0]
    e_a, e_b = (residuals(stats.rankdata(x[seen]), *dummies(layer)) for x in (a, b))
    found = within_layers(a, b)
    assert np.isclose(found.partial, np.corrcoef(e_a, e_b)[0, 1]) and np.isfinite(found.p)
    assert np.isclose(found.rho, stats.spearmanr(a[seen], b[seen]).statistic)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("sized", [False, True])
def test_modules_are_a_partial_correlation_on_layers_and_on_each_kinds_quadratic(missing, sized):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 5, 9)) * np.array([1, 10, 100, 1, 1])[:, None]
    if missing:
        a[0, :2] = b[0, :2] = np.nan
    size = np.log(rng.integers(10, 99, (5, 9))) if sized else None
    seen = np.isfinite(a)
    kind, layer = np.nonzero(seen)
    columns = dummies(layer) + [c * layer**power for c in dummies(kind) for power in (0, 1, 2)] + ([size[seen]] if sized else [])
    n_0 = seen.sum() - np.linalg.matrix_rank(np.stack(columns, 1))
    tables = []
    for values in (a, b):
        ranks = np.concatenate([stats.rankdata(row[np.isfinite(row)]) for row in values])
        e = np.zeros((5, 9))
        e[seen] = residuals(ranks, *columns)
        tables.append(e)
    e_a, e_b = tables
    both = (e_a**2).sum() * (e_b**2).sum()
    over_kinds = sum((e_a[i] @ e_b[j]) ** 2 for i in range(5) for j in range(5)) / 4
    over_layers = sum((e_a[:, i] @ e_b[:, j]) ** 2 for i in range(9) for j in range(9)) / 8
    found = within_kinds(a, b, size)
    r = (e_a * e_b).sum() / np.sqrt(both)
    n_eff = n_0 * min(1, both / n_0 / over_kinds) * min(1, both / n_0 / over_layers) + 1
    assert np.isclose(found.partial, r) and np.isclose(found.n_eff, n_eff) and np.isclose(found.p, p_of(r, n_eff - 2))
    assert np.isclose(found.rho, stats.spearmanr(a[seen], b[seen]).statistic)


def test_modules_of_few_layers_or_kinds_have_rho_alone():
    for shape in ((6, 7), (3, 12)):
        found = within_kinds(*table(2, *shape))
        assert np.isfinite(found.rho) and np.isnan([found.partial, found.n_eff, found.p]).all()


def test_values_instead_of_ranks_take_the_scale_of_no_kind():
    """A kind whose values are a thousand times those of the others counts as they do."""
    a, b = table(2, 6, 12)
    scale = np.array([1, 1, 1000, 1, 1, 1.0])[:, None]
    assert np.isclose(within_kinds(a, b, ranks=False).partial, within_kinds(a * scale, b / scale, ranks=False).partial)


def test_many_problems_at_once_are_each_what_it_is_alone():
    for correlate, shape in ((along_depth, (9,)), (within_layers, (3, 4)), (within_kinds, (4, 8))):
        a, b = table(2, 5, *shape)
        found, alone = correlate(a, b), correlate(a[3], b[3])
        for name in ("rho", "partial", "n_eff", "p"):
            assert np.allclose(getattr(found, name)[3], getattr(alone, name), equal_nan=True)


def test_p_of_a_majority():
    assert majority_p([0.03]) == 0.03
    assert majority_p([0.01, 0.04]) == 0.04
    assert majority_p([0.2, 0.01, 0.02]) == pytest.approx(0.02 * 3 / 2)
    assert majority_p([0.01, np.nan, 0.02]) == pytest.approx(0.02 * 3 / 2)
    assert majority_p([0.01, np.nan]) == 1 and np.isnan(majority_p([np.nan, np.nan]))
    rng = np.random.default_rng(0)
    for same in (False, True):  # whatever the dependence
        p = rng.random((4000, 5)) if not same else np.repeat(rng.random((4000, 1)), 5, 1)
        assert np.mean([majority_p(row) <= 0.05 for row in p]) < 0.055


# Nulls: two measures with nothing in common but how depth, layers and kinds of module shape them.


def ar1(rng, *shape, phi=0.5):
    noise, x = rng.normal(size=shape), np.empty(shape)
    x[..., 0] = noise[..., 0]
    for i in range(1, shape[-1]):
        x[..., i] = phi * x[..., i - 1] + np.sqrt(1 - phi**2) * noise[..., i]
    return x


SERIES = {
    "independent": lambda rng, L, x: rng.normal(size=(R, L)),
    "AR(1), .5": lambda rng, L, x: ar1(rng, R, L),
    "AR(1), .9": lambda rng, L, x: ar1(rng, R, L, phi=0.9),
    "one trend": lambda rng, L, x: 3 * x + ar1(rng, R, L),
    "heavy tails": lambda rng, L, x: 2 * x + rng.standard_t(1.5, (R, L)),
    "exponential": lambda rng, L, x: np.exp(2 * x + ar1(rng, R, L)),
}
HEADS = {
    "independent": lambda rng, L, H, f, s: rng.normal(size=(R, L, H)),
    "layers differ": lambda rng, L, H, f, s: f + rng.normal(size=(R, L, H)),
    "layers spread": lambda rng, L, H, f, s: f + s * rng.normal(size=(R, L, H)),
    "heavy tails": lambda rng, L, H, f, s: f + rng.standard_t(1, (R, L, H)),
    "a few heads": lambda rng, L, H, f, s: (
        rng.normal(size=(R, L, H)) * 0.05 + 5 * ((rng.random((R, L, H)) < 0.1) & (np.arange(L)[:, None] >= L // 2))
    ),
    "shared keys": lambda rng, L, H, f, s: (
        f + np.repeat(rng.normal(size=(R, L, 2)), H // 2, -1) + 0.5 * rng.normal(size=(R, L, H))
    ),
}
KINDS = {
    "independent": lambda rng, K, L, x, g: rng.normal(size=(R, K, L)),
    "AR(1), .9": lambda rng, K, L, x, g: ar1(rng, R, K, L, phi=0.9),
    "kinds and depth": lambda rng, K, L, x, g: g + 4 * x + rng.normal(size=(R, K, L)),
    "products": lambda rng, K, L, x, g: np.exp(g / 2 + 2 * x + 0.5 * rng.normal(size=(R, K, L))),
    "each its slope": lambda rng, K, L, x, g: g + g * x / 3 + ar1(rng, R, K, L),
    "heavy tails": lambda rng, K, L, x, g: g + 2 * x + rng.standard_t(1.5, (R, K, L)),
    "kinds spread": lambda rng, K, L, x, g: g + 4 * x + np.exp(g / 5) * rng.normal(size=(R, K, L)),
    "attention and MLP": lambda rng, K, L, x, g: (
        g + ar1(rng, R, 2, L)[:, (np.arange(K) < K // 2).astype(int)] + 0.7 * ar1(rng, R, K, L)
    ),
}


def size(p, alpha=0.05):
    """The share of problems that a test calls significant; one without a p value is not."""
    return (p < alpha).mean()


def spearman_p(rho, n):
    return p_of(rho, n - 2)


@pytest.mark.parametrize("null", SERIES)
def test_series_with_nothing_in_common_are_seldom_called_correlated(null):
    for n_layers in (8, 12, 32):
        rng, x = np.random.default_rng(0), np.linspace(-1, 1, n_layers)
        found = along_depth(*(SERIES[null](rng, n_layers, x) for _ in "ab"))
        assert size(found.p) < 0.065 and size(found.p, 0.01) < 0.02
        naive = size(spearman_p(found.rho, n_layers))
        if null != "independent":  # the p value of Spearman's rho itself, on the same numbers
            assert naive > 0.085 and (n_layers < 32 or naive > 0.1)
        if null in ("one trend", "exponential"):
            assert naive > 0.6


@pytest.mark.parametrize("null", HEADS)
def test_heads_with_nothing_in_common_are_seldom_called_correlated(null):
    for n_layers, n_heads in ((2, 4), (2, 12), (4, 8), (12, 12)):
        if null == "shared keys" and n_heads == 4:
            continue
        rng = np.random.default_rng(1)
        f, s = 3 * rng.normal(size=(R, n_layers, 1)), np.exp(1.2 * rng.normal(size=(R, n_layers, 1)))
        found = within_layers(*(HEADS[null](rng, n_layers, n_heads, f, s) for _ in "ab"))
        assert size(found.p) < 0.07 and size(found.p, 0.01) < 0.025
        if null not in ("independent", "a few heads"):
            assert size(spearman_p(found.rho, n_layers * n_heads)) > 0.15
    if null == "layers spread":  # where n − L − 1 are not the degrees of freedom, layer by layer though the means are gone
        assert size(p_of(found.partial, 12 * 12 - 12 - 1)) > 0.15


@pytest.mark.parametrize("null", KINDS)
def test_modules_with_nothing_in_common_are_seldom_called_correlated(null):
    for n_kinds, n_layers in ((4, 8), (6, 12), (9, 24)):
        rng, x = np.random.default_rng(2), np.linspace(-1, 1, n_layers)
        g = 5 * rng.normal(size=(R, n_kinds, 1))
        found = within_kinds(*(KINDS[null](rng, n_kinds, n_layers, x, g) for _ in "ab"))
        assert size(found.p) < 0.065 and size(found.p, 0.01) < 0.02
        if null not in ("independent", "AR(1), .9"):
            assert size(spearman_p(found.rho, n_kinds * n_layers)) > 0.6
    if null == "attention and MLP":  # kinds that go together: their number is not what the degrees of freedom say
        assert size(p_of(found.partial, 9 * 24 - 24 - 3 * 8 - 1)) > 0.15


def test_powers():
    """A correlation of .8 beside autocorrelation .5 and effects of layer and kind."""
    rng = np.random.default_rng(3)

    def pair(*shape, effect=0.0):
        a = ar1(rng, *shape)
        return a + effect, 0.8 * a + 0.6 * ar1(rng, *shape) + effect

    assert 0.6 < size(along_depth(*pair(R, 12)).p) < 0.75 and size(along_depth(*pair(R, 24)).p) > 0.9
    powers = []
    for n_layers, n_heads in ((2, 4), (2, 8), (12, 12)):
        a = rng.normal(size=(R, n_layers, n_heads))
        f = 3 * rng.normal(size=(R, n_layers, 1))
        powers.append(size(within_layers(f + a, f + 0.8 * a + 0.6 * rng.normal(size=a.shape)).p))
    assert 0.3 < powers[0] < 0.45 and 0.75 < powers[1] < 0.87 and powers[2] > 0.99
    kinds = [within_kinds(*pair(R, *shape, effect=5 * rng.normal(size=(R, shape[0], 1)))) for shape in ((4, 8), (6, 8), (6, 12))]
    assert 0.6 < size(kinds[0].p) < 0.75 and size(kinds[1].p) > 0.92 and size(kinds[2].p) > 0.98
