"""Products with curvature matrices, against dense ones."""

import signal

import pytest
import torch
from curved_models import at_weights, dense, dense_ggn, dense_hessian, flat_weights, perceptron, quadratic
from model_zoo import CAUSAL
from tiny_models import random_gpt2
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp
from torch.nn.functional import cross_entropy

import tensorscope_nb as ts
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.units import units

TOKENS = torch.randint(1, 9, (5, 7), generator=torch.Generator().manual_seed(0))


def language():
    model = random_gpt2(vocab_size=9, n_embd=4, n_layer=1, n_head=2, n_positions=7).double()
    mask = torch.ones_like(TOKENS)
    mask[1, 4:] = 0
    mask[3, 2:] = 0
    return ts.Scope(model), ts.Samples.tokens(TOKENS, mask)


def mean_loss(scope, samples, reduction):
    """The same loss written down once more, for a dense Hessian."""
    ids, mask = samples.input_ids, samples.attention_mask

    def loss(weights):
        options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0), "use_cache": False}
        logits = functional_call(scope.model, weights, (ids,), options).logits
        each = cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none") * mask[:, 1:]
        return each.sum() / mask[:, 1:].sum() if reduction == "sum" else (each.sum(1) / mask[:, 1:].sum(1)).mean()

    return loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_the_hessian_of_a_language_model_is_the_dense_one(reduction, chunk):
    scope, samples = language()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        truth = dense_hessian(mean_loss(scope, samples, reduction), scope)
    found = dense(Curvature(Objective(scope, samples, reduction=reduction), "hessian", chunk=chunk))
    assert len(truth) < 2000
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-10)


def test_the_hessian_and_the_gauss_newton_matrix_of_a_classifier_are_the_dense_ones():
    scope, samples = perceptron()
    x, y = samples.inputs["x"], samples.labels
    truth = dense_hessian(lambda weights: cross_entropy(functional_call(scope.model, weights, (x,)), y), scope)
    objective = Objective(scope, samples)
    torch.testing.assert_close(dense(Curvature(objective, "hessian", chunk=7)), truth, rtol=1e-9, atol=1e-11)
    ggn = dense(Curvature(objective, "ggn", chunk=7))
    torch.testing.assert_close(ggn, dense_ggn(scope, samples), rtol=1e-9, atol=1e-11)
    assert float(torch.linalg.eigvalsh(truth)[0]) < -0.01 < float(torch.linalg.eigvalsh(ggn)[0])


def test_torch_func_has_the_same_hessian_of_a_model_without_a_norm():
    scope, samples = perceptron(norm=False)
    x, y = samples.inputs["x"], samples.labels
    loss = lambda flat: cross_entropy(functional_call(scope.model, at_weights(scope, flat), (x,)), y)
    truth = torch.func.hessian(loss)(flat_weights(scope))
    torch.testing.assert_close(dense(Curvature(Objective(scope, samples), "hessian")), truth, rtol=1e-9, atol=1e-12)


def test_of_a_linear_classifier_the_gauss_newton_matrix_is_the_hessian():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scope = ts.Scope(nn.Sequential(nn.Linear(5, 4)).double())
        samples = ts.Samples.tensors(torch.randn(20, 5).double(), torch.randint(4, (20,)))
    objective = Objective(scope, samples)
    found = dense(Curvature(objective, "ggn"))
    torch.testing.assert_close(found, dense(Curvature(objective, "hessian")), rtol=1e-10, atol=1e-12)
    assert float(found.abs().max()) > 0.05


def test_the_fisher_is_of_single_gradients_and_not_of_their_mean():
    scope, samples = language()
    for reduction in ("mean", "sum"):
        g = torch.cat([row.flatten(1) for row in scope.per_sample_gradients(samples).values()], 1)
        terms = scope.rule.n_terms(samples).double()
        if reduction == "sum":
            g = g * terms[:, None]
        truth = g.T @ g / (terms.sum() if reduction == "sum" else len(g))
        found = dense(Curvature(Objective(scope, samples, reduction=reduction), "fisher", chunk=2))
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
        assert torch.linalg.matrix_rank(found) == len(samples)


@pytest.mark.parametrize("make, reduction", [(perceptron, "mean"), (language, "sum")])
def test_with_drawn_labels_the_fisher_tends_to_the_gauss_newton_matrix(make, reduction):
    scope, samples = make()
    truth = dense(Curvature(Objective(scope, samples, reduction=reduction), "ggn"))
    directions = torch.randn(6, len(truth), dtype=truth.dtype, generator=torch.Generator().manual_seed(0))
    total, errors = torch.zeros_like(directions), {}
    for seed in range(200):
        drawn, _ = units(scope, samples, "sequence", "mc", seed)
        fisher = Curvature(Objective(scope, drawn, reduction=reduction), "fisher")
        total += torch.stack([fisher(v) for v in directions])
        if seed + 1 in (25, 200):
            errors[seed + 1] = float((total / (seed + 1) - directions @ truth).norm() / (directions @ truth).norm())
    assert errors[200] < 0.15
    assert errors[200] < 0.6 * errors[25]  # about a third in expectation: no bias is left


@pytest.mark.parametrize("family", ["gpt2", "llama", "llama tied", "gpt_neox", "gemma2", "qwen3"])
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
def test_products_of_every_family_are_derivatives_of_the_gradient_or_of_the_outputs(family, matrix):
    """By finite differences in double precision: of the gradient; of the outputs, and of single losses."""
    model = CAUSAL[family]().double().eval()
    scope, samples = ts.Scope(model), ts.Samples.tokens(torch.randint(1, 50, (3, 6), generator=torch.Generator().manual_seed(0)))
    objective = Objective(scope, samples)
    v = torch.randn(objective.size, generator=torch.Generator().manual_seed(1)).double()
    v /= v.norm()
    found = Curvature(objective, matrix, chunk=2)(v)
    if matrix == "hessian":
        expected = _derivative(objective, v, lambda: _flat(objective.gradient(objective.parts())))
        assert float((found - expected).norm() / expected.norm()) < 1e-3
        return
    w = torch.randn(objective.size, generator=torch.Generator().manual_seed(2)).double()
    w /= w.norm()
    rows = slice(0, 3)

    def read():
        with torch.no_grad():
            outputs = objective.outputs(rows)
            return objective.losses(outputs, rows) if matrix == "fisher" else outputs

    along = [_derivative(objective, direction, read) for direction in (v, w)]
    if matrix == "fisher":
        expected = float((along[0] * along[1]).mean())
    else:
        z = objective.outputs(rows).detach()[:, :-1]
        p, (jv, jw) = z.softmax(-1), (a[:, :-1] for a in along)
        expected = float(((p * jv * jw).sum(-1) - (p * jv).sum(-1) * (p * jw).sum(-1)).mean())
    assert float(w @ found) == pytest.approx(expected, rel=2e-3, abs=1e-4 * float(found.norm()))


def _flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def _derivative(objective, v, read, t=2e-3):
    """By differences of the fourth order: some families round to single precision inside, so steps cannot be small."""
    pieces, start = [], 0
    for p in objective.parameters:
        pieces.append((p, p.detach().clone(), v[start : start + p.nelement()].view(p.shape)))
        start += p.nelement()
    found = 0
    for step, share in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
        for p, at, along in pieces:
            p.data.copy_(at + step * t * along)
        found = found + share * read()
    for p, at, _ in pieces:
        p.data.copy_(at)
    return found / (12 * t)


def test_which_second_derivatives_of_layer_norm_torch_has_right():
    """Two backwards, as here, and ``jvp`` of ``grad``: right. In torch 2.13 ``jvp`` of ``jacrev`` and ``grad`` of ``jvp`` are not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).double()
        x, target = torch.randn(2, 5, 4).double()
        model[1].weight.data += 0.3 * torch.randn(4)
    loss = lambda weights: ((functional_call(model, weights, (x,)) - target) ** 4).sum()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    generator, t = torch.Generator().manual_seed(1), 1e-5
    along = {name: torch.randn(w.shape, generator=generator).double() for name, w in weights.items()}
    ahead, behind = (grad(loss)({n: w + s * along[n] for n, w in weights.items()}) for s in (t, -t))
    truth = {n: (ahead[n] - behind[n]) / (2 * t) for n in weights}
    apart = lambda found: max(float((found[n] - truth[n]).norm() / truth[n].norm()) for n in weights)
    scope = ts.Scope(model, loss=lambda output, y: ((output - y) ** 4).sum(1))
    operator = Curvature(Objective(scope, ts.Samples.tensors(x, target)), "hessian")
    pieces = (operator(_flat(along.values())) * len(x)).split([w.nelement() for w in weights.values()])
    assert apart({n: piece.view(weights[n].shape) for n, piece in zip(weights, pieces, strict=True)}) < 1e-7
    assert apart(jvp(grad(loss), (weights,), (along,))[1]) < 1e-7
    if torch.__version__.startswith("2.13"):  # once torch has mended it, numerics/curvature.py says so in vain
        assert apart(jvp(jacrev(loss), (weights,), (along,))[1]) > 0.01
        assert apart(grad(lambda w: jvp(loss, (w,), (along,))[1])(weights)) > 0.01


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
def test_products_are_symmetric_and_the_same_however_the_samples_are_cut(matrix):
    scope, samples = language()
    objective = Objective(scope, samples, reduction="sum")
    u, v = torch.randn(2, objective.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = Curvature(objective, matrix)
    assert float(u @ whole(v)) == pytest.approx(float(v @ whole(u)), rel=1e-9)
    for chunk in (1, 2, 3):
        torch.testing.assert_close(Curvature(objective, matrix, chunk=chunk)(v), whole(v), rtol=1e-9, atol=1e-11)
    turned = Objective(scope, samples[[3, 0, 4, 1, 2]], reduction="sum")
    torch.testing.assert_close(Curvature(turned, matrix, chunk=2)(v), whole(v), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
def test_graphs_that_are_made_again_give_the_same(matrix):
    scope, samples = language()
    objective = Objective(scope, samples)
    v = torch.randn(objective.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kept = Curvature(objective, matrix, chunk=2)
    with ts.options(memory=int(kept.nbytes // 2)):
        again = Curvature(objective, matrix, chunk=2)
        assert again.nbytes < kept.nbytes
        found = [again(v), again(v)]
    for each in found:
        torch.testing.assert_close(each, kept(v), rtol=1e-12, atol=1e-13)


def test_chosen_modules_are_a_diagonal_block():
    scope, samples = perceptron()
    whole = dense(Curvature(Objective(scope, samples), "hessian"))
    block = dense(Curvature(Objective(scope, samples, modules="3"), "hessian"))
    torch.testing.assert_close(block, whole[-45:, -45:], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_single_samples_add_is_the_form_of_the_whole(matrix, reduction):
    scope, samples = language()
    operator = Curvature(Objective(scope, samples, reduction=reduction), matrix, chunk=2)
    rows = torch.randn(3, operator.size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    each = torch.cat([operator.by_sample(rows, part) for part in operator.parts])
    for i, v in enumerate(rows):
        assert float(each[:, i].mean()) == pytest.approx(float(v @ operator(v)), rel=1e-9)
    alone = Curvature(Objective(scope, samples[3], reduction="mean"), "hessian" if matrix == "hessian" else matrix)
    if reduction == "mean":
        assert float(each[3, 0]) == pytest.approx(float(rows[0] @ alone(rows[0])), rel=1e-9)


def test_a_loss_that_is_linear_has_no_curvature():
    scope, samples = quadratic(torch.zeros(3, 3, dtype=torch.float64))
    scope = ts.Scope(scope.model, loss=lambda output, target: (output * target).sum(1))
    operator = Curvature(Objective(scope, samples), "hessian")
    assert not operator(torch.ones(3, dtype=torch.float64)).any()
    assert not operator.by_sample(torch.ones(1, 3, dtype=torch.float64), slice(0, 4)).any()


def test_the_model_is_left_as_it_was():
    scope, samples = language()
    scope.model.train()
    before = {n: p.detach().clone() for n, p in scope.model.named_parameters()}
    state, flash = torch.get_rng_state(), torch.backends.cuda.flash_sdp_enabled()
    operator = Curvature(Objective(scope, samples), "hessian")
    operator(torch.ones(operator.size, dtype=torch.float64))
    assert all(torch.equal(p, before[n]) and p.grad is None and p.requires_grad for n, p in scope.model.named_parameters())
    assert scope.model.training and torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cuda.flash_sdp_enabled() == flash


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_product_that_does_not_fit_is_an_error_and_no_vector(monkeypatch, error):
    scope, samples = language()
    operator = Curvature(Objective(scope, samples), "hessian", chunk=2)
    v = torch.ones(operator.size, dtype=torch.float64)
    operator(v)
    operator._kept[1] = lambda vectors: (_ for _ in ()).throw(error)
    with pytest.raises(MemoryError, match=r"out of memory in a product with the hessian .* 2 samples at a time.*chunk="):
        operator(v)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return Once.apply(self.linear(x))


def test_a_part_without_a_second_derivative_is_named():
    scope = ts.Scope(Squares())
    operator = Curvature(Objective(scope, ts.Samples.tensors(torch.ones(2, 3), torch.zeros(2, dtype=torch.long))), "hessian")
    with pytest.raises(ts.UnsupportedModel, match="no second derivative: a part of Squares"):
        operator(torch.ones(8))


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x):
        self.scale.add_(1)
        return torch.tanh(self.linear(x)) * self.scale


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(3, 2, sparse=True)

    def forward(self, x):
        return self.embedding(x.long()).sum(1)


@pytest.mark.parametrize("model, words", [(Buffered, "writes into a tensor"), (Sparse, "sparse=False")])
def test_what_has_no_products_says_why(model, words):
    operator = Curvature(
        Objective(ts.Scope(model()), ts.Samples.tensors(torch.ones(2, 3), torch.zeros(2, dtype=torch.long))), "hessian"
    )
    with pytest.raises(ts.UnsupportedModel, match=words):
        operator(torch.ones(operator.size))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5).double()

    def forward(self, x):
        return torch.func.vmap(torch.func.grad(lambda v: (torch.tanh(v) ** 2).sum()))(self.linear(x))


def test_a_model_with_derivatives_inside():
    _, samples = perceptron()
    scope = ts.Scope(Functional())
    truth = dense_hessian(
        lambda weights: cross_entropy(functional_call(scope.model, weights, (samples.inputs["x"],)), samples.labels), scope
    )
    torch.testing.assert_close(dense(Curvature(Objective(scope, samples), "hessian")), truth, rtol=1e-9, atol=1e-11)


def test_half_precision_is_refused():
    model = nn.Sequential(nn.Linear(3, 2)).half()
    samples = ts.Samples.tensors(torch.ones(2, 3), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ts.UnsupportedModel, match=r"0.weight is float16.*dtype=torch.float32"):
        Objective(ts.Scope(model), samples)


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x - x.mean(0))


def test_samples_that_mix_are_refused():
    x = torch.arange(12.0).reshape(4, 3)
    operator = Curvature(Objective(ts.Scope(Mixing()), ts.Samples.tensors(x, torch.zeros(4, dtype=torch.long))), "hessian")
    with pytest.raises(ts.UnsupportedModel, match="changes with the samples beside it"):
        operator(torch.ones(8))


def test_a_kink_is_said():
    relu, smooth = perceptron(nn.ReLU), perceptron(nn.Tanh)
    assert "piecewise linear" in Objective(*relu).notes[0] and not Objective(*smooth).notes


@pytest.mark.parametrize("chunk", [0, -1, 1.5])
def test_a_chunk_of_nothing_is_refused(chunk):
    with pytest.raises(ValueError, match="chunk is"):
        Curvature(Objective(*perceptron()), "hessian", chunk=chunk).parts


def test_an_interrupt_in_a_product_comes_at_once_and_leaves_the_operator_whole():
    scope, samples = language()
    operator = Curvature(Objective(scope, samples), "hessian", chunk=2)
    v = torch.ones(operator.size, dtype=torch.float64)
    whole = operator(v)
    own = operator._kept[1]
    operator._kept[1] = lambda vectors: signal.raise_signal(signal.SIGINT) or own(vectors)
    with pytest.raises(KeyboardInterrupt):
        operator(v)
    operator._kept[1] = own
    assert torch.equal(operator(v), whole)
