import math

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(3))


def test_the_loss_is_shifted_and_averaged_over_predicted_tokens():
    model = random_gpt2()
    mask = torch.ones_like(IDS)
    mask[2, 6:] = 0
    losses = ts.Scope(model).losses(ts.Samples.tokens(IDS, mask))
    for i, n in enumerate([10, 10, 6, 10]):
        with torch.no_grad():
            own = model(IDS[i : i + 1, :n], labels=IDS[i : i + 1, :n]).loss
        assert torch.allclose(losses[i], own, atol=1e-5)


def test_left_and_right_padding_give_equal_losses():
    scope = ts.Scope(random_gpt2())
    pad = torch.zeros(4, 3, dtype=torch.long)
    left = ts.Samples.tokens(torch.cat([pad, IDS], 1), torch.cat([pad, torch.ones_like(IDS)], 1))
    right = ts.Samples.tokens(torch.cat([IDS, pad], 1), torch.cat([torch.ones_like(IDS), pad], 1))
    plain = scope.losses(IDS)
    assert torch.allclose(scope.losses(left), plain, atol=1e-5)
    assert torch.allclose(scope.losses(right), plain, atol=1e-5)


def test_labels_choose_what_is_predicted():
    scope = ts.Scope(random_gpt2())
    labels = IDS.clone()
    labels[:, :-1] = -100
    found = scope.losses(ts.Samples.tokens(IDS, labels=labels))
    logits = scope.record(IDS, "logits")["logits"]
    assert torch.allclose(found, -logits[:, -2].log_softmax(-1).gather(1, IDS[:, -1:])[:, 0], atol=1e-5)


def test_the_perplexity_of_a_uniform_model_is_the_vocabulary():
    model = random_gpt2()
    model.transformer.wte.weight.data.zero_()
    found = ts.Scope(model).perplexity(IDS)
    assert math.isclose(found.value, 50, rel_tol=1e-5) and found.n_tokens == 36
    assert math.isclose(found.ci_low, 50, rel_tol=1e-5) and math.isclose(found.ci_high, 50, rel_tol=1e-5)


def test_perplexity_weighs_tokens_not_samples():
    scope = ts.Scope(random_gpt2())
    mask = torch.ones_like(IDS)
    mask[1:, 3:] = 0
    samples = ts.Samples.tokens(IDS, mask)
    losses = scope.losses(samples).double()
    counts = torch.tensor([9.0, 2.0, 2.0, 2.0]).double()
    found = scope.perplexity(samples, chunk=3)
    assert math.isclose(found.nll, float((losses * counts).sum() / counts.sum()), rel_tol=1e-6)
    assert found.ci_low < found.value < found.ci_high


def test_a_sample_that_predicts_nothing_is_named():
    samples = ts.Samples.tokens(IDS, torch.tensor([[1] * 10, [1] + [0] * 9, [1] * 10, [1] * 10]), task="prose")
    with pytest.raises(ValueError, match="sample 'prose-1' has no token to predict"):
        ts.Scope(random_gpt2()).losses(samples)


def test_a_loss_that_is_not_a_number_is_an_error():
    model = random_gpt2()
    scope = ts.Scope(model)
    model.transformer.wte.weight.data[49] = float("inf")
    with pytest.raises(
        ValueError, match=r"the loss of sample 'samples-0' is nan: the parameter transformer\.wte.weight holds NaN or infinity"
    ):
        scope.losses(IDS)


def test_the_perplexity_of_a_broken_model_is_infinite_and_its_nll_is_kept():
    model = random_gpt2()
    model.transformer.ln_f.weight.data *= 1e4
    found = ts.Scope(model).perplexity(IDS)
    assert found.value == math.inf and 1000 < found.nll < math.inf
