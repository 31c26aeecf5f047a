"""Tokens as units, and labels drawn from the model."""

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.samples import IGNORED
from tensorscope_nb.sweep.units import drawn, tokens_apart

IDS = torch.randint(1, 50, (5, 10), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[2, 6:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
N_TOKENS = [9, 9, 5, 9, 9]


def by_token(scope, name):
    """The gradients of single tokens' losses, one backward each."""
    found = []
    parameter = dict(scope.model.named_parameters())[name]
    for i, row in enumerate(IDS):
        logits = scope.model(row[: int(MASK[i].sum())][None]).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, row[1 : len(logits) + 1], reduction="none")
        found += [torch.autograd.grad(loss, parameter, retain_graph=True)[0] for loss in losses]
    return torch.stack(found)


def test_the_fisher_of_tokens_against_a_backward_per_token():
    scope, name = ts.Scope(random_gpt2()), "transformer.h.0.attn.c_attn.weight"
    g = by_token(scope, name)
    assert len(g) == sum(N_TOKENS)
    diagonal = ts.recipes.fisher_importance(scope, SAMPLES, sample_unit="token")
    assert torch.allclose(diagonal[name], (g**2).mean(0), rtol=1e-4, atol=1e-8)
    assert diagonal.metadata["n_used"] == 5 and diagonal.metadata["n_units"] == 41
    module = name.removesuffix(".weight")
    masses = ts.recipes.grouped_fisher(scope, SAMPLES, sample_unit="token", per_sample=True, modules=module)
    bias = by_token(scope, f"{module}.bias")
    q = (g**2).flatten(1).sum(1) + (bias**2).sum(1)
    assert np.isclose(masses["importance"].item(), q.mean(), rtol=1e-4)
    means = [part.mean() for part in q.split(N_TOKENS)]
    assert np.allclose(masses["importance_by_sample"][:, 0], means, rtol=1e-4) and masses.sizes["sample"] == 5


def test_the_sum_over_a_sequence_is_not_the_sum_of_its_squares():
    """Cross terms between the tokens of a sequence: why the two units are two measures."""
    scope = ts.Scope(random_gpt2())
    whole = ts.recipes.grouped_fisher(scope, SAMPLES, reduction="sum")["importance"].sum()
    tokens = ts.recipes.grouped_fisher(scope, SAMPLES, sample_unit="token")["importance"].sum()
    assert abs(float(whole / tokens) - 1) > 0.05


def test_the_spectrum_of_tokens():
    scope, module = ts.Scope(random_gpt2()), "transformer.h.1.mlp.c_proj"
    g = torch.cat([by_token(scope, f"{module}.{part}").flatten(1) for part in ("weight", "bias")], 1).double()
    found = ts.recipes.fisher_spectrum(scope, SAMPLES, sample_unit="token", modules=module, per_sample=True)
    dense = torch.linalg.eigvalsh(g @ g.T / 41).flip(0)
    assert np.allclose(found["eigenvalue"], dense.clamp(min=0), atol=1e-5 * float(dense[0]))
    assert np.allclose(found["component_share"].sum("sample"), 1)
    shares = torch.linalg.eigh(g @ g.T / 41)[1].flip(1)[:, 0] ** 2
    assert np.allclose(found["component_share"].isel(component=0), [part.sum() for part in shares.split(N_TOKENS)], atol=1e-4)


def test_masked_models_and_others():
    scope = ts.Scope(build("bert"))
    labels = torch.full_like(IDS, IGNORED)
    labels[:, [2, 5]] = IDS[:, [2, 5]]
    samples = ts.Samples.tokens(IDS, labels=labels)
    apart, source = tokens_apart(scope, samples)
    assert len(apart) == 10 and source.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and apart.ids[1] == "samples-0@5"
    losses = scope.losses(apart).reshape(5, 2)
    assert torch.allclose(losses.mean(1), scope.losses(samples), atol=1e-6)
    rows = ts.Samples.tensors(torch.rand(3, 10), torch.tensor([0, 1, 2]))
    with pytest.raises(ts.UnsupportedModel, match="the unit 'token' is for language models"):
        ts.recipes.grouped_fisher(ts.Scope(build("mlp")), rows, sample_unit="token")
    with pytest.raises(ValueError, match="sample_unit is 'word'"):
        ts.recipes.grouped_fisher(scope, samples, sample_unit="word")
    with pytest.raises(ValueError, match="kind is 'true'"):
        ts.recipes.fisher_spectrum(scope, samples, kind="true")


def test_drawn_labels_follow_the_model():
    """Frequencies of a linear classifier's draws against its probabilities; a sample's draw does not depend on the others."""
    scope = ts.Scope(torch.nn.Linear(3, 4))
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).expand(4000, 3).contiguous()
    samples = ts.Samples.tensors(x, torch.zeros(4000, dtype=torch.long))
    labels = drawn(scope, samples, 0).labels
    p = scope.model(x[:1]).softmax(-1)[0].detach()
    frequencies = torch.bincount(labels, minlength=4) / 4000
    assert ((frequencies - p).abs() < 4 * (p * (1 - p) / 4000).sqrt()).all()
    assert torch.equal(drawn(scope, samples[100:110], 0).labels, labels[100:110])
    assert not torch.equal(drawn(scope, samples, 1).labels, labels)


def test_the_fisher_of_drawn_labels_is_the_true_one():
    """Softmax regression: F = E[(diag p − p pᵀ) ⊗ x xᵀ], whatever the data's labels are."""
    scope = ts.Scope(torch.nn.Linear(3, 4, bias=False))
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    samples = ts.Samples.tensors(x, torch.zeros(4000, dtype=torch.long))
    found = ts.recipes.fisher_importance(scope, samples, kind="mc", seed=3)["weight"]
    p = scope.model(x).softmax(-1).detach()
    each = (p * (1 - p))[:, :, None] * x[:, None] ** 2
    assert torch.allclose(found, each.mean(0), rtol=0.15)
    empirical = ts.recipes.fisher_importance(scope, samples)["weight"]
    assert not torch.allclose(empirical, each.mean(0), rtol=0.15)


def test_drawn_labels_of_a_language_model_stand_where_tokens_are_predicted():
    scope = ts.Scope(random_gpt2())
    labels = drawn(scope, SAMPLES, 0).labels
    assert torch.equal(labels != IGNORED, scope.rule.predicted(SAMPLES)) and not torch.equal(
        labels[labels != IGNORED], IDS[labels != IGNORED]
    )
    sure = random_gpt2()
    sure.transformer.ln_f.weight.data *= 0
    sure.transformer.ln_f.bias.data = 50 * sure.transformer.wte.weight.data[7]  # says token 7, always
    assert (drawn(ts.Scope(sure), SAMPLES, 0).labels[scope.rule.predicted(SAMPLES)] == 7).all()
    custom = ts.Scope(torch.nn.Linear(2, 2), loss=lambda out, y: out.sum(1))
    with pytest.raises(ts.UnsupportedModel, match="must be the likelihood of labels"):
        ts.recipes.fisher_importance(custom, (torch.ones(2, 2), torch.zeros(2)), kind="mc")


def test_drawn_labels_do_not_depend_on_the_side_of_the_padding():
    scope = ts.Scope(random_gpt2())
    ids = torch.randint(1, 50, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 3:] = 0, 0
    turned = torch.stack([row.roll(int((~seen.bool()).sum())) for row, seen in zip(ids, mask, strict=True)])
    right, left = (
        drawn(scope, ts.Samples.tokens(*given), 3).labels for given in ((ids, mask), (turned, mask.flip(1)))
    )  # seen tokens, and the same ones after the padding
    for a, b in zip(right, left, strict=True):
        assert torch.equal(a[a >= 0], b[b >= 0])
