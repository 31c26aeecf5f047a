"""Which samples of two tasks pull the weights against each other, and through which tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.numerics.crossed import row_tests
from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.numerics.outlying import depth, lower_tail, recentred
from tensorscope_nb.recipes.dataset import SQUARED, Variable, dataset
from tensorscope_nb.recipes.modules import by_layer
from tensorscope_nb.recipes.pair_tokens import PairTokens, pair_coords, share_first, token_variables
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.tasks import TwoTasks, check_alpha
from tensorscope_nb.sweep.reducers import Gram, Losses
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

ENOUGH = {True: 15, False: 21}  # samples of each of two tasks, and of one set
LEAST = 3  # samples of each task: with fewer there are no pairs within a task to compare with


@recipe(
    question="Which samples of two tasks fight, and through which tokens?",
    source="inner products as in Wang et al. 2024, arXiv:2406.11011; the tests are ours",
    needs=("gradients",),
)
def sample_conflicts(
    scope: Scope,
    a: Any,
    b: Any = None,
    *,
    alpha: float = 0.01,
    tokens: int = 16,
    skip_first: bool | None = None,
    per_sample: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The cosine of every pair of samples' gradients, which pairs are more opposed than pairs are, and their tokens.

    What it answers: whether single samples fight, which, and where in their texts. With ``b`` left out (called by itself,
    not in a Study) the pairs are those within ``a``.
    Equation: c_ij = cos(g_i, g_j), i in a, j in b. A pair is compared with pairs within the tasks: null = {c_kl − max(0,
    median_a)} within a ∪ {c_kl − max(0, median_b)} within b; p is the rank in the null, and below its lowest tenth
    0.1 · exp(−distance / mean excess); q by Benjamini–Hochberg over all pairs; significant where q ≤ ``alpha`` and c_ij < 0.
    effect_size = −c_ij / (1.4826 · MAD of the null). Beside it each sample against the other task: Student's one-sided test
    of its mean cosine, ``task_p_value_a, task_q_value_a`` and the same of b. Measured: of pairs .054 to .061 at .05 where
    gradients are noise, 0 where tasks have a mean in common, at most .075 for orthogonal tasks; any discovery at most .04 at
    q ≤ .05. One planted pair at −.35 among 1,024 is found, of gradients whose noise has many directions also at −.2.
    Contributions: ⟨g_i, g_j⟩ is a sum over positions s of i and t of j and weights, (L_is · L_jt)(R_is · R_jt) with the
    factors of each weight's gradient; ``contribution_a`` sums it over t, ``contribution_b`` over s. Source: inner products as
    in Wang et al. 2024; the tests are ours.

    Result: ``[sample_a, sample_b] cosine, dot, p_value, q_value, effect_size, significant, conflict_layer`` (the layer with
    the lowest dot), ``token_a, token_b`` (the input token that lowers the dot most; −1 where not looked at); ``[sample_a]
    loss_a, mean_cosine_a, task_p_value_a, task_q_value_a`` and the same of b; coordinates ``index_a, index_b``: numbers in a
    + b (in a Study: in its samples). The ``tokens`` most opposed pairs are looked at token by token: ``[pair, position_a]
    contribution_a, token_text_a, token_id_a`` and the same of b, at the cost of running those samples once more. A first
    token that all samples share makes much of every product (more than half of it on the packaged model): it is told apart,
    in ``[pair] first_token_a, first_token_b``, and its contribution is NaN; ``skip_first`` decides otherwise. With
    ``per_sample`` also ``[layer, sample_a, sample_b] layer_dot``. ``ts.recipes.conflict_pairs``, ``curate`` and
    ``conflict_tokens`` read it.
    Errors: ValueError for fewer than 3 samples of a task. Cost: one forward and one backward, n² inner products.
    How to read it: a pair that stands out has an effect size of 3 and more; .5 is passed by a third of noise. When not to
    trust it: pairs share samples, so discoveries come in rows and columns; with fewer than 15 samples of each task (21 of
    one set) no tail is fitted and nothing can be significant. ``task_p_value`` asks whether this sample opposes the other
    task's mean gradient. In orthogonal tasks some do, by what is their own: an eighth to a third of them at .05. It is no
    sign that the tasks conflict; ``gradient_alignment`` is.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose, code = ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8)
    >>> conflicts = ts.recipes.sample_conflicts(scope, prose, code, tokens=4)
    >>> conflicts["cosine"].shape, conflicts["contribution_a"].shape
    ((8, 8), (4, 64))
    """
    whole = TwoTasks.of(scope, a, b, alone=True)
    whole.require(LEAST)
    check_alpha(alpha)
    whole.warn_few(ENOUGH[whole.apart], "no tail is fitted, and hardly any pair can be significant")
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}: say how many pairs to look at token by token, 0 for none")
    gram, losses = Gram(), Losses()
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(whole.samples, [gram, losses], enough=lambda n: whole.enough(n, LEAST), **options)
    two = whole.within(len(covered.samples))
    k = np.sum([each.numpy() for each in gram.values.values()], 0)
    sizes = np.sqrt(np.diagonal(k))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (k / sizes[:, None] / sizes).clip(-1, 1)
    table = cosines[np.ix_(two.a, two.b)]
    if not two.apart:
        np.fill_diagonal(table, np.nan)
    asked = np.ones_like(table, dtype=bool) if two.apart else np.triu(np.ones_like(table, dtype=bool), 1)
    p, q, effect = _tested(cosines, two, table, asked)
    significant = (q <= alpha) & (table < 0)
    both = ("sample_a", "sample_b")
    variables: dict[str, Variable] = {
        "cosine": (both, table, "cosine of the gradients", ""),
        "dot": (both, k[np.ix_(two.a, two.b)], "inner product of the gradients", SQUARED),
        "p_value": (both, p, "p of a conflict", ""),
        "q_value": (both, q, "q of a conflict, over all pairs", ""),
        "effect_size": (both, effect, "conflict in units of the null's spread", ""),
        "significant": (both, significant, f"conflict at q ≤ {alpha:g}", ""),
    }
    of_layers = by_layer(scope, gram.values)
    if of_layers:
        stacked = np.stack([each.numpy()[np.ix_(two.a, two.b)] for each in of_layers.values()])
        lowest = np.array(list(of_layers))[stacked.argmin(0)]
        variables["conflict_layer"] = (both, lowest, "layer with the lowest inner product", "")
    for side, rows, cosine in (("a", two.a, table), ("b", two.b, table.T)):
        mean, task_p = row_tests(cosine)
        dims, other = (f"sample_{side}",), two.names[side == "a"]
        variables[f"loss_{side}"] = (dims, losses.values[rows].numpy(), "mean loss", "loss")
        variables[f"mean_cosine_{side}"] = (dims, mean, f"mean cosine with the gradients of task {other}", "")
        variables[f"task_p_value_{side}"] = (dims, task_p, f"p of a conflict with task {other}", "")
        variables[f"task_q_value_{side}"] = (dims, q_values(task_p), f"q of a conflict with task {other}, over samples", "")
    coords: dict[str, Any] = two.coords()
    said = two.said(covered, whole) | {"alpha": float(alpha)}
    looked_at = two.samples.has_tokens and tokens > 0
    for side in "ab" if looked_at else "":
        words = f"token of sample {side} that lowers the product most"
        variables[f"token_{side}"] = (both, np.full(table.shape, -1), words, "")
    pairs = _most_opposed(table, p, asked, tokens) if looked_at else []
    if pairs:
        skip = share_first(two.samples) if skip_first is None else bool(skip_first)
        said["skip_first"] = skip
        names, said["without_positions"] = yield from _token_by_token(two, pairs, skip, variables, options)
        coords |= names
    if per_sample and of_layers:
        variables["layer_dot"] = (("layer", *both), stacked, "inner product of the gradients, by layer", SQUARED)
        coords["layer"] = list(of_layers)
    result = dataset(variables, coords, **said)
    result["significant"].attrs["rule"] = f"q ≤ {alpha:g} and a negative cosine"
    return result


def _tested(cosines: np.ndarray, two: TwoTasks, table: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, ...]:
    """p, q and effect size of each pair; of one set each pair is tested once and shown twice."""
    null = np.concatenate([recentred(cosines[np.ix_(rows, rows)]) for rows in ([two.a, two.b] if two.apart else [two.a])])
    p, q = np.full_like(table, np.nan), np.full_like(table, np.nan)
    p[asked] = lower_tail(table[asked], null)
    q[asked] = q_values(p[asked])
    effect = np.where(asked, depth(table, null), np.nan)
    if two.apart:
        return p, q, effect
    return tuple(np.where(asked, x, x.T) for x in (p, q, effect))


def _most_opposed(table: np.ndarray, p: np.ndarray, asked: np.ndarray, n: int) -> list[tuple[int, int]]:
    """Rows and columns of the pairs with a negative cosine, by p and then by cosine."""
    i, j = np.nonzero(asked & (table < 0))
    order = np.lexsort((table[i, j], p[i, j]))[:n]
    return [(int(i[at]), int(j[at])) for at in order]


def _token_by_token(
    two: TwoTasks,
    pairs: list[tuple[int, int]],
    skip_first: bool,
    variables: dict[str, Variable],
    options: dict[str, Any],
) -> Any:
    """Adds what the tokens of these pairs do to ``variables``; returns their coordinates, and what has no positions."""
    rows = [(int(two.a[i]), int(two.b[j])) for i, j in pairs]
    involved = sorted({row for pair in rows for row in pair})
    numbered = [(involved.index(i), involved.index(j)) for i, j in rows]
    reducer = PairTokens(numbered, two.samples.input_ids.shape[1])
    samples = two.samples[involved]
    covered = yield GradientRequest(samples, [reducer], enough=lambda n: True, **options)  # there is a result without it
    n = len(covered.samples) if covered else 0  # an interrupt leaves fewer than there are
    done = [at for at, pair in enumerate(numbered) if max(pair) < n]
    reducer.keep(done)
    pairs, rows = [pairs[at] for at in done], [rows[at] for at in done]
    if not pairs:
        return {}, []
    i, j = (np.array(side) for side in zip(*pairs, strict=True))
    for name in ("cosine", "p_value", "q_value", "effect_size", "significant"):
        _, values, words, unit = variables[name]
        variables[f"pair_{name}"] = (("pair",), values[i, j], words, unit)
    made, token_a, token_b = token_variables(samples, reducer, SQUARED, skip_first)
    variables |= made
    for side, token, mirrored in (("a", token_a, token_b), ("b", token_b, token_a)):
        ids = variables[f"token_{side}"][1]
        if not two.apart:
            ids[j, i] = mirrored
        ids[i, j] = token
    return pair_coords(two, rows), sorted(reducer.unknown)
