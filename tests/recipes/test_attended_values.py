"""Attention scores against direct logits: loops over edges, ideal heads, and how often the test is wrong."""

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import attention_only, random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.numerics.intervals import correlation_interval
from tensorscope_nb.recipes.attended_values import exchanged, repeated_queries, within_queries
from tensorscope_nb.recipes.pairing import _correlations

FAMILIES = ["gpt2", "llama", "mistral", "qwen3", "gemma2", "olmo2", "gpt_neox"]


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def tokens(n=3, length=12, seed=0, high=6):
    return torch.randint(1, high, (n, length), generator=torch.Generator().manual_seed(seed))


def by_loops(scope, ids, layer, head, weighted=False, final=None):
    """r of each sequence, edge by edge: what attention, and all that follows it, makes of one head at one key alone."""
    model, anatomy = scope.model, scope.anatomy
    names = {n: f"layers.{layer}.attn.{n}" for n in ("scores", "pattern", "v", "out")} | {
        "resid": f"layers.{anatomy.n_layers - 1}.resid_post"
    }
    sites = {n: v.double() for (n, site) in names.items() for v in [scope.record(ids, site)[site]]}
    out = model.get_submodule(anatomy.module(layer, "O"))
    unembed = model.get_output_embeddings().weight.detach().double()
    after = anatomy.table.after_attention
    found = []
    for i in range(len(ids)):
        xs, ys = [], []
        for t in range(ids.shape[1] - 1):
            if ids[i, t] not in ids[i, :t]:
                continue
            keys = [s for s in range(t + 1) if sites["scores"][i, head, t, s] > -1e30]
            y = []
            for s in keys:
                z = torch.zeros(anatomy.n_heads, anatomy.d_head)
                z[head] = sites["v"][i, s, head // (anatomy.n_heads // anatomy.n_kv_heads)].float()
                with torch.no_grad():
                    written = (out(z.flatten()) - out(torch.zeros_like(z).flatten())).double()
                if after:
                    written = _through(model.get_submodule(f"{anatomy.names[layer]}.{after}"), sites["out"][i, t], written)
                logits = unembed @ _through(model.get_submodule(anatomy.final_norm), sites["resid"][i, t], written)
                weight = sites["pattern"][i, head, t, s] if weighted else 1.0
                y.append((weight * (logits[ids[i, t + 1]] - logits.mean())).item())
            x = sites["scores"][i, head, t, keys].numpy()
            xs.append(x - x.mean())
            ys.append(np.array(y) - np.mean(y))
        x, y = np.concatenate(xs), np.concatenate(ys)
        found.append((x @ y) / np.sqrt((x @ x) * (y @ y)))
    return np.array(found)


def _through(norm, whole, part):
    """What a part becomes in a norm at the scale of the whole, by the norm itself: linear at a fixed scale."""
    d = len(whole)
    gain = norm.weight.detach().double()
    if type(norm).__name__.startswith("Gemma"):
        gain = 1 + gain
    centred = lambda x: x - x.mean() if isinstance(norm, torch.nn.LayerNorm) else x
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", 0.0)
    return gain * centred(part) / ((centred(whole) ** 2).sum() / d + eps) ** 0.5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_edge_of_every_family(name, weighted):
    scope, ids = ts.Scope(build(name)), tokens()
    found = ts.recipes.qk_ov_pairing(scope, ids, weighted=weighted)
    for layer, head in ((0, 1), (1, 2)):
        r = by_loops(scope, ids, layer, head, weighted)
        here = found.sel(layer=layer, head=head)
        mean, low, high = correlation_interval(r)
        for variable, value in (("qk_ov_correlation", mean), ("ci_low", low), ("ci_high", high)):
            assert here[variable].item() == pytest.approx(float(value), abs=2e-4), (variable, layer, head)


def test_queries_by_hand():
    samples = ts.Samples.tokens(torch.tensor([[7, 5, 6, 5, 5, 6, 9, 7]]), torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]]))
    assert repeated_queries(samples).nonzero().tolist() == [[0, 3], [0, 4], [0, 5]]
    following = samples.input_ids.roll(-1, 1)
    assert exchanged(following, repeated_queries(samples))[0].tolist() == [5, 6, 5, 9, 5, 6, 7, 7]  # 5, 6, 9 moved on by one


def test_within_queries_row_constants_do_not_count():
    x, y = torch.randn(2, 2, 3, 7, 7, generator=torch.Generator().manual_seed(0)).double()
    edges = torch.ones(7, 7).tril().bool()[None, None].expand(2, 1, 7, 7)
    constant = torch.randn(2, 3, 7, 1, generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(within_queries(x, y, edges), within_queries(x + 100 * constant, y - 30 * constant, edges))
    assert torch.allclose(within_queries(x, 3 * x + constant, edges), torch.ones(2, 3).double())
    assert torch.isnan(within_queries(torch.ones_like(x), y, edges)).all()


def test_the_induction_head_of_a_model_built_by_hand_looks_where_it_helps():
    scope = ts.Scope(attention_only())
    samples = ts.datasets.repeats(scope, n=6, period=10, token_range=(1, 20), bos=0)
    found = ts.recipes.qk_ov_pairing(scope, samples).sel(head=0)
    # one key of each query scores, and it alone writes the right token
    assert found["qk_ov_correlation"].sel(layer=1).item() > 0.99 and found["q_value"].sel(layer=1).item() < 1e-4
    assert abs(found["qk_ov_correlation_null"].sel(layer=1).item()) < 0.2
    assert found["n_queries"].values.tolist() == [9] * 6


def test_heads_of_the_packaged_model():
    scope = ts.load("tiny")
    found = ts.recipes.qk_ov_pairing(scope, ts.datasets.repeats(scope, n=8))
    induction = ts.recipes.induction_heads(scope)["is_induction"].values
    r, control = found["qk_ov_correlation"].values, found["qk_ov_correlation_null"].values
    assert (found["ci_low"].values[induction] > 0.02).all() and (np.abs(r[~induction]) < 0.03).all()
    assert (np.abs(control) < 0.03).all()
    assert (found["q_value"].values[induction] < 0.01).all()


def test_padding_and_chunks_change_nothing():
    scope, ids = ts.Scope(build("llama")), tokens()
    padded = ts.Samples.tokens(
        torch.cat([ids, torch.ones(3, 4, dtype=torch.long)], 1), torch.cat([torch.ones(3, 12), torch.zeros(3, 4)], 1).long()
    )
    left = ts.Samples.tokens(
        torch.cat([torch.ones(3, 4, dtype=torch.long), ids], 1), torch.cat([torch.zeros(3, 4), torch.ones(3, 12)], 1).long()
    )
    plain = ts.recipes.qk_ov_pairing(scope, ids)
    for other in (padded, left):
        found = ts.recipes.qk_ov_pairing(scope, other, chunk=1)
        for name in ("qk_ov_correlation", "qk_ov_correlation_null", "p_value", "n_queries"):
            assert np.allclose(plain[name], found[name], atol=1e-4), name


def test_a_sequence_without_repeats_is_left_out():
    scope, ids = ts.Scope(random_gpt2()), tokens(4)
    with_one = torch.cat([ids, torch.arange(1, 13)[None]])
    both = [ts.recipes.qk_ov_pairing(scope, x) for x in (ids, with_one)]
    assert both[1]["n_queries"].values.tolist()[-1] == 0
    assert np.allclose(both[0]["qk_ov_correlation"], both[1]["qk_ov_correlation"], atol=1e-5)
    none = ts.recipes.qk_ov_pairing(scope, torch.arange(1, 13)[None].expand(2, -1))
    assert np.isnan(none["qk_ov_correlation"]).all() and np.isnan(none["q_value"]).all()


def sequences(rng, n, rho, n_heads, lengths):
    """r of sequences with so many edges each; the true r varies from one to the next."""
    rows = []
    for length in lengths[:n]:
        own = np.tanh(np.arctanh(rho) + 0.1 * rng.normal(size=n_heads))
        x = rng.normal(size=(length, n_heads))
        y = own * x + np.sqrt(1 - own**2) * rng.normal(size=(length, n_heads))
        rows.append([np.corrcoef(x[:, h], y[:, h])[0, 1] for h in range(n_heads)])
    return np.array(rows)


@pytest.mark.parametrize("n", [3, 6, 20])
def test_size_and_coverage_with_sequences_of_unequal_length(n):
    rng, heads = np.random.default_rng(n), 400
    lengths = np.array([8, 300, 30, 100, 15, 60] * 4)
    for rho in (0.0, 0.6):
        right = sequences(rng, n, rho, heads, lengths)
        found = _correlations(right[:, None], sequences(rng, n, rho, heads, lengths)[:, None])
        covered = ((found["ci_low"][1] <= rho) & (rho <= found["ci_high"][1])).mean()
        error = np.sqrt(0.05 * 0.95 / heads)
        assert 0.95 - 3 * error - 0.01 <= covered  # it may cover more where lengths differ much
        assert (found["p_value"][1] <= 0.05).mean() <= 0.05 + 3 * error


def test_random_models_relate_nothing():
    """p over the heads of random models, on random repeats: nothing beyond the level."""
    p = []
    for seed in range(12):
        scope = ts.Scope(random_gpt2(seed, n_head=4))
        samples = ts.datasets.repeats(scope, n=8, period=10, token_range=(1, 50), bos=0, seed=seed)
        p.append(ts.recipes.qk_ov_pairing(scope, samples)["p_value"].values.ravel())
    p = np.concatenate(p)
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(p))


def test_one_query_has_nothing_to_be_exchanged_with():
    one = [[1, 2, 1, 3], [4, 5, 4, 6]]
    found = ts.recipes.qk_ov_pairing(ts.Scope(build("llama")), one)
    assert found["qk_ov_correlation"].notnull().all() and (found["n_queries"] == 1).all()
    assert found["qk_ov_correlation_null"].isnull().all() and found["p_value"].isnull().all()


def test_where_no_token_occurs_again_it_is_said():
    found = ts.recipes.qk_ov_pairing(ts.Scope(build("llama")), [[1, 2, 3], [4, 5, 6]])["qk_ov_correlation"]
    assert found.isnull().all() and "occur" in found.attrs["reason"]
