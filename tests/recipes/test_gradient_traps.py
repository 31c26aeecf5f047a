"""The classical ways to get per-sample gradients silently wrong, one test each.

Every test also says how far off the trap is, so that it cannot pass by the trap being harmless on its model.
"""

import copy

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb import recipes

N = 9


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(n=N, length=12, low=1, seed=1):
    return torch.randint(low, 50, (n, length), generator=torch.Generator().manual_seed(seed))


def seeded(make, *args):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args).eval()


def one_by_one(model, losses):
    """{parameter: (n, …)} in double precision, from ordinary backwards of ``losses``, one scalar per sample."""
    weights = dict(model.named_parameters())
    rows = [torch.autograd.grad(loss, list(weights.values()), retain_graph=True, allow_unused=True) for loss in losses]
    return {
        name: torch.stack([torch.zeros_like(p) if row[i] is None else row[i] for row in rows]).double()
        for i, (name, p) in enumerate(weights.items())
    }


def classified(model, x, y):
    """The same for a classifier, each sample run alone."""
    return one_by_one(model, [torch.nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))])


def next_token(model, rows):
    """The same for a language model, each row alone and as long as it is: token t predicts t + 1."""
    losses = []
    for row in rows:
        logp = model(row[None]).logits[0].log_softmax(-1)
        losses.append(-logp[:-1].gather(1, row[1:, None]).mean())
    return one_by_one(model, losses)


def mass(gradients, *modules):
    """(n,): the squared gradients of some modules' parameters, of all where none is named."""
    return sum(
        (g**2).reshape(len(g), -1).sum(1) for name, g in gradients.items() if not modules or name.rpartition(".")[0] in modules
    )


def agree(model, samples, expected, *, loss=None, chunks=(None, 1, 4), rtol=1e-4):
    """Masses by module and sample, the whole spectrum and the diagonal, each at several chunk sizes."""
    scope = ts.Scope(model, loss=loss)
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in expected))
    by_module = torch.stack([mass(expected, m) for m in modules], 1).numpy()
    flat = torch.cat([g.reshape(len(g), -1) for g in expected.values()], 1)
    eigenvalues = (torch.linalg.svdvals(flat) ** 2 / len(flat)).numpy()
    for chunk in chunks:
        found = recipes.grouped_fisher(scope, samples, per_sample=True, chunk=chunk)
        found = found.sel(module=modules)["importance_by_sample"].values
        assert np.allclose(found, by_module, rtol=rtol, atol=rtol * 1e-2 * by_module.max()), chunk
        found = recipes.fisher_spectrum(scope, samples, chunk=chunk)["eigenvalue"].values[: len(eigenvalues)]
        assert np.allclose(found, eigenvalues, rtol=rtol, atol=rtol * eigenvalues[0]), chunk
        importance = recipes.fisher_importance(scope, samples, chunk=chunk)
        for name, g in expected.items():
            diagonal = (g**2).mean(0)
            largest = float(diagonal.max())
            assert torch.allclose(importance[name].double(), diagonal, rtol=10 * rtol, atol=rtol * max(largest, 1e-9)), (
                chunk,
                name,
            )


# --- what a sample's loss is ------------------------------------------------------------------------------------------------


def test_the_square_of_a_batchs_gradient_is_not_the_fisher():
    """Two samples that pull in opposite directions: the batch's gradient is zero, and the Fisher is not."""

    class Point(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([0.0, 2.0]))

        def forward(self, x):
            return 0.5 * ((self.w - x) ** 2).sum(1)

    scope = ts.Scope(Point(), loss=lambda out, _: out)
    samples = ts.Samples.tensors(torch.tensor([[3.0, 1.0], [-3.0, 3.0]]), torch.zeros(2))  # g = (∓3, ±1)
    for chunk in (1, 2):
        assert recipes.fisher_importance(scope, samples, chunk=chunk)["w"].tolist() == [9, 1]
        assert recipes.taylor_importance(scope, samples, chunk=chunk)["w"].tolist() == [0, 0]
        assert recipes.taylor_importance(scope, samples, variant="absolute", chunk=chunk)["w"].tolist() == [0, 2]
        assert recipes.grouped_fisher(scope, samples, chunk=chunk)["importance"].item() == 10
        assert recipes.gradient_health(scope, samples, chunk=chunk)["grad_norm"].item() == 0


def test_a_token_predicts_the_next_one_and_not_itself():
    model, ids = random_gpt2(), tokens()
    shifted = next_token(model, ids)
    unshifted = one_by_one(model, [torch.nn.functional.cross_entropy(model(row[None]).logits[0], row) for row in ids])
    found = recipes.grouped_fisher(ts.Scope(model), ids)["importance"].sum()
    assert np.isclose(found, mass(shifted).mean(), rtol=1e-4)
    assert not np.isclose(found, mass(unshifted).mean(), rtol=0.1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [0, 37])
def test_padding_is_no_label_and_an_end_of_text_is_one(side, pad):
    """Also where padding has the id of the end of a text (0), which stands in the rows as a token of its own."""
    model, rows = random_gpt2(), [row[:k] for row, k in zip(tokens(), (12, 5, 9, 2, 12, 7, 3, 11, 6))]
    rows = [torch.cat([row, torch.tensor([0])]) for row in rows]
    width = max(map(len, rows))
    ids, mask = torch.full((N, width), pad), torch.zeros(N, width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = row, 1
    right = next_token(model, rows)
    agree(model, ts.Samples.tokens(ids, mask), right, chunks=(None, 4))
    without_the_end = mass(next_token(model, [row[:-1] if len(row) > 3 else row for row in rows]))
    with_padding = mass(next_token(model, ids))
    for wrong in (without_the_end, with_padding):
        assert ((mass(right) - wrong).abs() / mass(right) > 0.05).sum() >= 5


# --- which weights belong to a head -------------------------------------------------------------------------------------------

ATTENTION = {
    "gpt2": ("transformer.h.{}.attn", "c_proj"),
    "llama": ("model.layers.{}.self_attn", "o_proj"),
    "gpt_neox": ("gpt_neox.layers.{}.attention", "dense"),
    "bert": ("bert.encoder.layer.{}.attention", "output.dense"),
}


def only_head_writes(model, name, layer, head):
    """Zeroes what the other heads of a layer write: no gradient reaches their Q, K and V any more, and all the O's its input."""
    path, out = ATTENTION[name]
    weight = model.get_submodule(f"{path.format(layer)}.{out}").weight.data
    d_head = weight.shape[0] // (4 if name == "llama" else 3)
    kept = torch.zeros(weight.shape[0], dtype=torch.bool)
    kept[head * d_head : (head + 1) * d_head] = True
    if name == "gpt2":
        weight[~kept] = 0
    else:
        weight[:, ~kept] = 0


def only_head_reads(model, name, layer, head):
    """Zeroes the values of the other heads: their part of O is multiplied with nothing."""
    path = ATTENTION[name][0].format(layer)
    attention = model.get_submodule(path)
    if name == "gpt2":
        weight, bias = attention.c_attn.weight.data[:, 48:], attention.c_attn.bias.data[48:]  # views of V's columns
        kept = torch.arange(24) // 8 == head
        weight[:, ~kept], bias[~kept] = 0, 0
    elif name == "gpt_neox":
        fused = attention.query_key_value
        place = torch.arange(72)
        drop = (place // 8 % 3 == 2) & (place // 24 != head)
        fused.weight.data[drop], fused.bias.data[drop] = 0, 0
    else:
        value = attention.v_proj if name == "llama" else attention.self.value
        head, d_head = (head // 2, 6) if name == "llama" else (head, 8)
        drop = torch.arange(len(value.weight)) // d_head != head
        value.weight.data[drop] = 0
        if value.bias is not None:
            value.bias.data[drop] = 0


def by_head(model, samples):
    return recipes.grouped_fisher(ts.Scope(model), samples, granularity="head")["importance"]


def head_samples(name):
    if name != "bert":
        return ts.Samples.tokens(tokens())
    labels = torch.full((N, 12), -100)
    labels[:, 3::4] = tokens()[:, 3::4]
    return ts.Samples.tokens(tokens(), labels=labels)


@pytest.mark.parametrize("name", ATTENTION)
def test_the_part_of_o_is_where_the_head_comes_in(name):
    """A head alone has values: only its part of O has a gradient. GPT-2's O is square, so that its transpose fits as well."""
    model, head = build(name), 1
    only_head_reads(model, name, 1, head)
    found = by_head(model, head_samples(name)).sel(layer=1, block="O")
    group = [0, 1] if name == "llama" else [head]  # values are shared there
    others = [h for h in range(found.sizes["head"]) if h not in group]
    assert (found.sel(head=group) > 1e-3).all()
    assert (found.sel(head=others) == 0).all()


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "bert"])
def test_the_parts_of_q_k_and_v_are_those_of_the_head_that_writes(name):
    model, head = build(name), 2
    only_head_writes(model, name, 0, head)
    found = by_head(model, head_samples(name)).sel(layer=0, block=["Q", "K", "V"])
    assert (found.sel(head=head) > 0).all()
    assert (found.sel(head=[0, 1]) == 0).all()
    assert (found.sel(head=head, block="V") > 1e-3).all()


def test_shared_keys_and_values_show_at_every_head_that_uses_them():
    """Of four query heads over two of K and V, head 3 alone writes: Q shows at 3, K and V at 2 and 3, and their sums are right."""
    model = build("llama")
    only_head_writes(model, "llama", 0, 3)
    samples = head_samples("llama")
    scope = ts.Scope(model)
    found = recipes.grouped_fisher(scope, samples, granularity="head")
    q, k, v, o = (found["importance"].sel(layer=0, block=b).values for b in "QKVO")
    assert (q > 0).tolist() == [False, False, False, True]
    assert (k > 0).tolist() == (v > 0).tolist() == [False, False, True, True]
    assert k[2] == k[3] and v[2] == v[3] and (o > 0).all()
    assert found["n_sharing"].sel(block=list("QKVO")).values.tolist() == [1, 2, 2, 1]
    g = next_token(model, tokens())
    path = "model.layers.0.self_attn"
    for block, total in (("Q", q), ("K", k), ("V", v), ("O", o)):
        expected = mass(g, f"{path}.{block.lower()}_proj").mean()
        assert np.isclose(total.sum() / float(found["n_sharing"].sel(block=block)), expected, rtol=1e-4)


# --- which samples belong to a task -----------------------------------------------------------------------------------------


def test_a_task_is_not_the_beginning_of_another():
    """``math``, ``math_hard`` and ``math-1`` share their beginnings, and their samples' ids do so too."""
    scope, ids = ts.Scope(random_gpt2()), tokens(12)
    parts = {"math": ids[:5], "math_hard": ids[5:9], "math-1": ids[9:]}
    samples = sum(
        (ts.Samples.tokens(rows, task=task) for task, rows in list(parts.items())[1:]),
        ts.Samples.tokens(parts["math"], task="math"),
    )
    contributions = ts.Study(scope, samples).contributions
    by_sample = recipes.grouped_fisher(scope, samples, per_sample=True)["importance_by_sample"]
    name = "transformer.h.0.mlp.c_fc.weight"
    for task, rows in parts.items():
        g = next_token(scope.model, rows)
        assert list(contributions[task]) == [f"{task}-{i}" for i in range(len(rows))]
        assert torch.allclose(contributions.fisher(task, name).double(), (g[name] ** 2).mean(0), rtol=1e-3, atol=1e-9)
        assert torch.allclose(contributions[task][f"{task}-1"][name].double(), g[name][1] ** 2, rtol=1e-3, atol=1e-9)
        assert np.allclose(by_sample[by_sample["task"] == task].sum("module"), mass(g), rtol=1e-4)
        assert np.allclose(by_sample.sel(sample=f"{task}-1").sum(), mass(g)[1], rtol=1e-4)
    with pytest.raises(KeyError, match="there is no task 'mat'"):
        contributions["mat"]


# --- embeddings and positions -------------------------------------------------------------------------------------------------


class Bag(torch.nn.Module):
    """The mean of the tokens' embeddings, classified; the row of padding is a token like others, but learns nothing."""

    def __init__(self, **options):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 5, **options)
        self.head = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.embed(x).mean(1).tanh())


@pytest.mark.parametrize("options", [{"padding_idx": 0}, {"padding_idx": 6}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_the_options_of_an_embedding(options):
    """The row of padding has no gradient; one scaled by frequency has a smaller one, also with many samples in a batch."""
    model = seeded(lambda: Bag(**options))
    model.embed.weight.data = random(7, 5)
    x, y = tokens(low=0) % 7, torch.arange(N) % 3
    expected = {name: torch.stack([g[i].to_dense() for i in range(N)]) for name, g in dense(model, x, y).items()}
    agree(model, ts.Samples.tensors(x, y), expected)
    if "padding_idx" in options:
        assert (expected["embed.weight"][:, options["padding_idx"]] == 0).all()
        by_row = recipes.grouped_fisher(ts.Scope(model), ts.Samples.tensors(x, y), granularity="channel")
        row = by_row["importance"].sel(module="embed").values
        assert row[options["padding_idx"]] == 0 and (np.delete(row, options["padding_idx"])[:6] > 0).all()


def dense(model, x, y):
    found = {name: [] for name, _ in model.named_parameters()}
    for i in range(len(x)):
        loss = torch.nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        for name, g in zip(found, torch.autograd.grad(loss, list(model.parameters()))):
            found[name].append(g.to_dense().double())
    return {name: torch.stack(rows) for name, rows in found.items()}


class Tied(torch.nn.Module):
    """Says back what it reads: embedding and head pull the same row the same way."""

    def __init__(self, tied=True):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
        self.embed.weight.data = 0.3 * random(6, 4)
        self.head.weight = self.embed.weight if tied else torch.nn.Parameter(self.embed.weight.detach().clone())

    def forward(self, x):
        return self.head(self.embed(x))


def test_tied_weights_have_a_cross_term():
    """‖E + H‖² of the embedding's and the head's parts, not ‖E‖² + ‖H‖²."""
    x = y = torch.arange(N) % 6
    g = classified(Tied(tied=False), x, y)
    e, h = g.values()
    assert ((mass({"": e + h}) - mass({"": e, "head": h})).abs() / mass({"": e + h}) > 0.3).sum() >= 5
    agree(Tied(), ts.Samples.tensors(x, y), {"embed.weight": e + h})


def test_a_tied_unembedding_has_a_cross_term():
    tied, ids = random_gpt2(), tokens()
    ids[:, 1:6], ids[:, 6:] = ids[:, :1], (ids[:, :1] + 1) % 50  # a text of two tokens: both parts lie in few rows
    apart = copy.deepcopy(tied)
    apart.lm_head.weight = torch.nn.Parameter(apart.lm_head.weight.detach().clone())
    g = next_token(apart, ids)
    e, h = g["transformer.wte.weight"], g.pop("lm_head.weight")
    assert ((mass({"": e + h}) - mass({"": e, "head": h})).abs() / mass({"": e + h})).max() > 0.15
    agree(tied, ts.Samples.tokens(ids), g | {"transformer.wte.weight": e + h})


@pytest.mark.parametrize("n", [1, 3, 12])
def test_the_positions_of_gpt2_belong_to_their_samples(n):
    """Their embedding runs once for a whole batch: as many samples as positions must not be taken for one another."""
    model, ids = random_gpt2(), tokens(n)
    expected = next_token(model, ids)
    agree(model, ts.Samples.tokens(ids), expected)
    q = mass(expected, "transformer.wpe").numpy()
    found = recipes.grouped_fisher(ts.Scope(model), ids, per_sample=True)["importance_by_sample"].sel(module="transformer.wpe")
    assert np.allclose(found, q, rtol=1e-4) and (q > 0).all()


@pytest.mark.parametrize("n", [2, 3, 5, N])
@pytest.mark.parametrize("kept", [True, False], ids=["batch of 1", "no batch"])
def test_positions_that_are_added_to_every_sample(n, kept):
    class Placed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.head = torch.nn.Embedding(5, 4), torch.nn.Linear(20, 3)

        def forward(self, x):
            where = torch.arange(5)
            return self.head((x + self.place(where[None] if kept else where)).tanh().flatten(1))

    model, x, y = seeded(Placed), random(n, 5, 4), torch.arange(n) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


# --- modules that do not do what modules do -----------------------------------------------------------------------------------


def test_an_activation_in_place_after_the_first_layer():
    layers = [
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(108, 6), torch.nn.SiLU(inplace=True),
        torch.nn.Linear(6, 3),
    ]  # fmt: skip
    model, x, y = seeded(lambda: torch.nn.Sequential(*layers)), random(N, 1, 8, 8), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


class Twice(torch.nn.Module):
    """One layer used again and again, as ALBERT does."""

    def __init__(self, times=3):
        super().__init__()
        self.times = times
        self.first, self.layer, self.norm, self.head = (
            torch.nn.Linear(6, 6),
            torch.nn.Linear(6, 6),
            torch.nn.LayerNorm(6),
            torch.nn.Linear(6, 3),
        )

    def forward(self, x):
        h = self.first(x)
        for _ in range(self.times):
            h = h + self.norm(self.layer(h).tanh())
        return self.head(h)


def test_a_layer_that_is_used_several_times():
    model, x, y = seeded(Twice), random(N, 6), torch.arange(N) % 3
    expected = classified(model, x, y)
    agree(model, ts.Samples.tensors(x, y), expected)
    # the trap: squares of each use, added
    uses, h = [], model.first(x)
    for _ in range(model.times):
        out = model.layer(h)
        uses.append((h, out))
        h = h + model.norm(out.tanh())
    deltas = torch.autograd.grad(torch.nn.functional.cross_entropy(model.head(h), y, reduction="sum"), [out for _, out in uses])
    naive = sum(((d[:, :, None] * x[:, None]) ** 2).flatten(1).sum(1) for d, (x, _) in zip(deltas, uses)).detach()
    right = (expected["layer.weight"] ** 2).flatten(1).sum(1)
    assert ((naive - right).abs() / right > 0.1).sum() >= 5


def test_albert_shares_one_layer():
    import transformers as tf

    model = seeded(
        lambda: tf.AlbertForMaskedLM(
            tf.AlbertConfig(
                vocab_size=50, embedding_size=8, hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=3,
                max_position_embeddings=32, initializer_range=0.3, pad_token_id=0,
            )
        )
    )  # fmt: skip
    ids, labels = tokens(), torch.full((N, 12), -100)
    labels[:, 4::3] = ids[:, 4::3]
    losses = [torch.nn.functional.cross_entropy(model(ids[i : i + 1]).logits[0], labels[i]) for i in range(N)]
    agree(model, ts.Samples.tokens(ids, labels=labels), one_by_one(model, losses), chunks=(None, 4))


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2}, {"groups": 4}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "circular"},
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_convolution(options):
    conv = lambda: torch.nn.Conv2d(4, 8, 3, **options)
    width = conv()(torch.zeros(1, 4, 7, 7)).flatten(1).shape[1]
    model = seeded(lambda: torch.nn.Sequential(conv(), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(width, 3)))
    x, y = random(N, 4, 7, 7), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


@pytest.mark.parametrize("kind", ["Conv1d", "Conv3d", "ConvTranspose2d"])
def test_convolutions_of_other_dimensions(kind):
    conv = lambda: getattr(torch.nn, kind)(2, 4, 3)
    shape = {"Conv1d": (9,), "Conv3d": (4, 4, 4), "ConvTranspose2d": (3, 3)}[kind]
    width = conv()(torch.zeros(1, 2, *shape)).flatten(1).shape[1]
    model = seeded(lambda: torch.nn.Sequential(conv(), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(width, 3)))
    x, y = random(N, 2, *shape), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


class Pair(torch.nn.Linear):
    """A projection that hands back two things."""

    def forward(self, x):
        return super().forward(x), x.mean()


class Tuples(torch.nn.Module):
    """Modules with tuples as outputs, and parameters that belong to no module that runs."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)
        self.recurrent = torch.nn.GRU(6, 5, batch_first=True)
        self.pair = Pair(5, 4)
        self.token = torch.nn.Parameter(random(1, 1, 6))
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.scale * x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.pair(self.recurrent(x)[0])[0].tanh().mean(1))


def test_tuples_and_parameters_that_stand_alone():
    model, x, y = seeded(Tuples), random(N, 4, 6), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


class Second(torch.nn.Linear):
    """A projection whose use lies in the second of its outputs."""

    def forward(self, x):
        return torch.zeros(len(x), 4), super().forward(x)


def test_an_output_that_is_not_the_first_of_a_tuple():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.head = Second(6, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.both(x)[1].tanh())

    model, x, y = seeded(Model), random(N, 6), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


class Routed(torch.nn.Module):
    """An expert that only some samples go through, as their first feature says."""

    def __init__(self):
        super().__init__()
        self.expert, self.common = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

    def forward(self, x):
        chosen = (x[:, 0] > 0).nonzero()[:, 0]
        return self.common(x).index_add(0, chosen, self.expert(x[chosen]))


@pytest.mark.parametrize("on", ["few", "first, middle and last", "every second", "all"])
def test_a_module_that_only_some_samples_go_through(on):
    chosen = {"few": [1, 3], "first, middle and last": [0, 4, 8], "every second": [0, 2, 4, 6, 8], "all": list(range(N))}[on]
    model, x, y = seeded(Routed), random(N, 4), torch.arange(N) % 3
    x[:, 0] = -1
    x[chosen, 0] = 1
    expected = classified(model, x, y)
    assert ((expected["expert.weight"] ** 2).flatten(1).sum(1) > 0).nonzero()[:, 0].tolist() == chosen
    agree(model, ts.Samples.tensors(x, y), expected)


class Summed(torch.nn.Module):
    """Its output has positions first and samples second, as recurrent models like it."""

    def __init__(self):
        super().__init__()
        self.first, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.first(x.transpose(0, 1)).tanh().mean(0))


@pytest.mark.parametrize("length", [3, 5, N])
def test_samples_on_the_second_axis(length):
    model, x, y = seeded(Summed), random(N, length, 4), torch.arange(N) % 3
    agree(model, ts.Samples.tensors(x, y), classified(model, x, y))


# --- numbers too small or too coarse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e-12])
def test_squares_of_bfloat16_gradients_do_not_vanish(scale):
    """Squares of 1e-14 and less, and sums of hundreds of them: in half precision these are zero."""
    layers = lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    full, half = seeded(layers), seeded(layers).bfloat16()
    samples = ts.Samples.tensors(random(N, 64), torch.arange(N) % 3)

    def loss(out, y):
        return scale * torch.nn.functional.cross_entropy(out.float(), y, reduction="none")

    for recipe, variable in (
        (recipes.grouped_fisher, "importance"),
        (recipes.gradient_health, "noise"),
        (recipes.fisher_spectrum, "trace"),
    ):
        a, b = (recipe(ts.Scope(model, loss=loss), samples)[variable].values for model in (half, full))
        assert (b > 0).all() and np.allclose(a, b, rtol=0.03)
    a, b = (recipes.fisher_importance(ts.Scope(model, loss=loss), samples) for model in (half, full))
    assert all(np.isclose(a[name].double().sum(), b[name].double().sum(), rtol=0.03) for name in b)


def test_squares_of_bfloat16_gradients_are_added_in_more_bits():
    """A sum that is rounded to bfloat16 is off by up to 4e-3; the gradients' own rounding averages out over a module."""
    model = seeded(lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64))).bfloat16()
    scope, samples = ts.Scope(model), ts.Samples.tensors(random(N, 64), torch.arange(N))
    q = torch.stack(
        [mass({n: g.double() for n, g in scope.per_sample_gradients(samples).items()}, m) for m in ("0", "2")], 1
    ).numpy()
    found = recipes.grouped_fisher(scope, samples, per_sample=True)["importance_by_sample"]
    assert (np.abs(found / q - 1) < 2e-3).all()
    assert (np.abs(torch.tensor(q).bfloat16().double().numpy() / q - 1) > 1e-3).any()
    assert np.allclose(recipes.fisher_spectrum(scope, samples)["trace"], q.mean(0), rtol=3e-4)
