"""Layers compared by linear CKA and by representational similarity: which rows they take, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from model_zoo import build
from scipy.stats import spearmanr
from tiny_models import random_gpt2
from torch import nn

import tensorscope_nb as ts
from tensorscope_nb.numerics.alignment import linear_alignment

cka, similarity = ts.recipes.linear_cka, ts.recipes.representational_similarity
IDS = torch.randint(1, 50, (8, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
for row, length in enumerate((12, 7, 9, 12, 4, 11, 8, 12)):
    MASK[row, length:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
TEXTS = ["to be or not to be", "that is the question", "so it goes", "on and on it goes", "and then some", "no more of that"]


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


@pytest.fixture(scope="module")
def scopes():
    return ts.Scope(random_gpt2(0)), ts.Scope(random_gpt2(1, n_layer=3, n_embd=18))


def said(result):
    return json.loads(result.attrs["tensorscope"])


def states(scope, samples=SAMPLES):
    """What each block puts out for each sample, the padding cut off: [layer][sample] (T, d)."""
    n = range(scope.anatomy.n_layers)
    record = scope.record(samples, [f"layers.{i}.resid_post" for i in n])
    return [
        [
            h[mask.bool()].double().numpy()
            for h, mask in zip(record[f"layers.{i}.resid_post"], samples.attention_mask, strict=True)
        ]
        for i in n
    ]


def as_rows(layers, tokens, skip_first=False):
    start = int(skip_first)
    reduce = {"all": lambda h: h, "mean": lambda h: h.mean(0, keepdims=True), "last": lambda h: h[-1:]}[tokens]
    return [np.concatenate([reduce(h[start:]) for h in layer]) for layer in layers]


def of_kernels(x, y, unit, unbiased):
    """Dense: the centred kernels, or what least squares leave of them over pairs of different units."""
    k, l = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))
    if unbiased:
        i, j = np.nonzero(np.triu(unit[:, None] != unit))
        design = np.zeros((len(i), len(unit)))
        design[np.arange(len(i)), i] = design[np.arange(len(i)), j] = 1
        k, l = (v[i, j] - design @ np.linalg.lstsq(design, v[i, j], rcond=None)[0] for v in (k, l))
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("tokens", ["all", "mean", "last"])
def test_every_option_against_dense_kernels(scopes, tokens, skip_first, estimator):
    found = cka(*scopes, SAMPLES, tokens=tokens, skip_first=skip_first, estimator=estimator)
    x, y = (as_rows(states(scope), tokens, skip_first) for scope in scopes)
    lengths = SAMPLES.lengths.numpy() - skip_first if tokens == "all" else np.ones(8, dtype=int)
    unit = np.repeat(np.arange(8), lengths)
    expected = [[of_kernels(a, b, unit, estimator == "unbiased") for b in y] for a in x]
    assert found["cka"].dims == ("layer_a", "layer_b") and found["cka"].shape == (2, 3)
    assert np.allclose(found["cka"], expected, atol=1e-5)
    assert ((found["ci_low"] < found["cka"]) & (found["cka"] < found["ci_high"])).all()


@pytest.mark.parametrize("tokens", ["all", "mean", "last"])
def test_skip_first_leaves_the_first_token_out_of_the_rows_and_not_out_of_the_model(scopes, tokens):
    """Against rows of which the first is cut off by hand; the companion is the same number in the same pass."""
    x, y = (as_rows(states(scope), tokens, True) for scope in scopes)
    unit = np.repeat(np.arange(8), SAMPLES.lengths.numpy() - 1) if tokens == "all" else np.arange(8)
    expected = linear_alignment(x, y, unit, [np.ones(len(unit), dtype=bool)])[0]
    found = cka(*scopes, SAMPLES, tokens=tokens, skip_first=True)
    assert "cka_without_first" not in found
    assert np.allclose(found["cka"], expected.value, atol=1e-5) and np.allclose(found["ci_low"], expected.low, atol=1e-5)
    beside = cka(*scopes, SAMPLES, tokens=tokens)
    if tokens == "all":
        assert np.allclose(beside["cka_without_first"], expected.value, atol=1e-5)
        assert np.allclose(beside["cka_without_first_ci_low"], expected.low, atol=1e-5)
        assert not np.allclose(beside["cka"], expected.value, atol=1e-3)
    else:
        assert "cka_without_first" not in beside and "top_token_share_a" not in beside


@pytest.mark.parametrize("recipe", [cka, similarity])
def test_neither_the_cut_into_chunks_nor_the_order_nor_the_side_of_the_padding_matters(scopes, recipe):
    whole = recipe(*scopes, SAMPLES, tokens="mean" if recipe is similarity else "all")
    options = {"tokens": "mean" if recipe is similarity else "all"}
    left = ts.Samples.tokens(
        torch.stack([row.roll(int(12 - n)) for row, n in zip(IDS, MASK.sum(1), strict=True)]),
        torch.stack([row.roll(int(12 - n)) for row, n in zip(MASK, MASK.sum(1), strict=True)]),
    )
    for other in (
        recipe(*scopes, SAMPLES, **options, chunk=1),
        recipe(*scopes, SAMPLES, **options, chunk=3),
        recipe(*scopes, SAMPLES[[5, 2, 7, 0, 1, 6, 3, 4]], **options),
        recipe(*scopes, left, **options),
    ):
        for name in set(whole.data_vars) - {"p_value"}:
            assert np.allclose(other[name], whole[name], atol=2e-5), name
    without = [recipe(*scopes, samples, **options, skip_first=True) for samples in (SAMPLES, left)]
    for name in set(without[0].data_vars) - {"p_value"}:
        assert np.allclose(without[0][name], without[1][name], atol=2e-5), name


def test_a_model_with_itself(scopes):
    scope, _ = scopes
    alone = cka(scope, samples=SAMPLES)
    assert (
        alone["cka"].shape == (2, 2)
        and np.allclose(np.diag(alone["cka"].values), 1)
        and np.allclose(np.diag(alone["ci_low"].values), 1)
    )
    for other in (scope, ts.Scope(random_gpt2(0), name="a copy")):
        assert np.allclose(cka(scope, other, SAMPLES)["cka"], alone["cka"])
    assert "model_b" not in said(alone)
    again = similarity(scope, samples=SAMPLES)
    assert np.allclose(np.diag(again["similarity"].values), 1) and (np.diag(again["p_value"].values) == 1 / 1000).all()


def test_turning_the_stream_of_a_model_changes_nothing():
    """An orthogonal map of what each MLP layer puts out, undone by the layer after it: the same CKA, another correlation."""
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    layers = [nn.Linear(6, 9), nn.Linear(9, 4)]
    turn = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(1)))[0]
    turned = [nn.Linear(6, 9), nn.Linear(9, 4)]
    turned[0].weight.data, turned[0].bias.data = 3 * turn @ layers[0].weight.data, 3 * turn @ layers[0].bias.data
    turned[1].weight.data, turned[1].bias.data = layers[1].weight.data @ turn.T / 3, layers[1].bias.data
    one, other = ts.Scope(nn.Sequential(*layers)), ts.Scope(nn.Sequential(*turned))
    samples = ts.Samples.tensors(x)
    alone = cka(one, samples=samples)
    assert np.allclose(cka(one, other, samples)["cka"], alone["cka"], atol=1e-6)
    for distance, same in (("euclidean", True), ("cosine", True), ("correlation", False)):
        found = similarity(one, other, samples, distance=distance)["similarity"].sel(layer_a=0, layer_b=0)
        assert (abs(found - 1) < 1e-3) == same, distance


def test_a_massive_first_token_is_seen_beside_the_number_that_it_makes():
    """Two unrelated models whose first token has one huge direction each: alike with it, unrelated without."""
    scopes = []
    for seed in (0, 1):
        model = random_gpt2(seed, n_layer=1)
        model.transformer.wpe.weight.data[0, seed] = 1e4
        scopes.append(ts.Scope(model))
    ids = torch.randint(1, 50, (12, 10), generator=torch.Generator().manual_seed(3))
    found = cka(*scopes, ts.Samples.tokens(ids))
    assert found["cka"].item() > 0.999
    assert found["cka_without_first"].item() < 0.5
    for side in "ab":
        assert found[f"top_token_share_{side}"].item() == pytest.approx(
            0.9**2 / (12 * 0.9**2 + 108 * 0.1**2), rel=0.01
        )  # of 12 firsts of 10
        assert found[f"top_token_position_{side}"].item() == 0
    skipped = cka(*scopes, ts.Samples.tokens(ids), skip_first=True)
    assert np.allclose(skipped["cka"], found["cka_without_first"])
    assert skipped["top_token_share_a"].item() < 0.08 and skipped["top_token_position_a"].item() > 0


def test_the_share_of_the_top_token_by_hand(scopes):
    found = cka(*scopes, SAMPLES)
    for i, x in enumerate(as_rows(states(scopes[0]), "all")):
        squares = ((x - x.mean(0)) ** 2).sum(1)
        position = np.concatenate([np.arange(n) for n in SAMPLES.lengths.tolist()])[squares.argmax()]
        assert found["top_token_share_a"][i] == pytest.approx(squares.max() / squares.sum(), rel=1e-4)
        assert found["top_token_position_a"][i] == position


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "bert", "bert headless", "bert classifier"])
def test_families_with_and_without_heads(name, scopes):
    scope = ts.Scope(build(name))
    found = cka(scope, scopes[1], SAMPLES)
    x, y = (as_rows(states(s), "all") for s in (scope, scopes[1]))
    unit = np.repeat(np.arange(8), SAMPLES.lengths.numpy())
    assert found["cka"].shape == (2, 3)
    assert found["cka"].values[1, 2] == pytest.approx(of_kernels(x[1], y[2], unit, True), abs=1e-5)


def test_patches_of_images_are_rows_and_maps_of_convolutions_are_flattened():
    vit, cnn = ts.Scope(build("vit")), ts.Scope(build("cnn"))
    image = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = ts.Samples.tensors({"pixel_values": image})
    found = cka(vit, samples=images)
    assert said(found)["n_rows"] == 10 * 5, "four patches and the class token"
    assert {"cka_without_first", "top_token_share_a"} <= set(found.data_vars)
    grey = ts.Samples.tensors(torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    found = cka(cnn, samples=grey)
    maps = [cnn.record(grey, f"layers.{i}.out")[f"layers.{i}.out"].flatten(1).double().numpy() for i in range(3)]
    expected = [[of_kernels(a, b, np.arange(10), True) for b in maps] for a in maps]
    assert np.allclose(found["cka"], expected, atol=1e-5)
    assert said(found)["n_rows"] == 10 and set(found.data_vars) == {"cka", "ci_low", "ci_high"}
    for tokens in ("mean", "last"):
        assert np.allclose(cka(cnn, samples=grey, tokens=tokens)["cka"], found["cka"]), "a row is a sample whatever tokens says"


class _Convolution(nn.Module):
    """It takes the same images as a ViT."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pixel_values):
        return self.conv(pixel_values)


def test_an_image_transformer_and_a_convolution_meet_in_samples_and_not_in_tokens():
    images = ts.Samples.tensors({"pixel_values": torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    vit, cnn = ts.Scope(build("vit")), ts.Scope(_Convolution())
    with pytest.raises(ValueError, match=r'have 50 and 10 rows for the same samples.*tokens="mean"'):
        cka(vit, cnn, images)
    found = cka(vit, cnn, images, tokens="mean")
    h = vit.record(images, "layers.*.resid_post")
    x = [h[f"layers.{i}.resid_post"].double().mean(1).numpy() for i in range(2)]
    y = cnn.record(images, "layers.0.out")["layers.0.out"].flatten(1).double().numpy()
    assert np.allclose(found["cka"][:, 0], [of_kernels(a, y, np.arange(10), True) for a in x], atol=1e-5)


def test_other_sites(scopes):
    found = cka(*scopes, SAMPLES, sites="attn.z", tokens="last")
    last = [scope.record(SAMPLES, "layers.1.attn.z")["layers.1.attn.z"] for scope in scopes]
    x, y = (torch.stack([h[n - 1] for h, n in zip(z, SAMPLES.lengths, strict=True)]).flatten(1).double().numpy() for z in last)
    assert found["cka"].values[1, 1] == pytest.approx(of_kernels(x, y, np.arange(8), True), abs=1e-5)


@pytest.mark.parametrize("distance", ["correlation", "euclidean", "cosine"])
@pytest.mark.parametrize("tokens, skip_first", [("mean", False), ("mean", True), ("last", False), ("all", False)])
def test_similarity_against_dense_tables(scopes, tokens, skip_first, distance):
    found = similarity(*scopes, SAMPLES, distance=distance, tokens=tokens, skip_first=skip_first, permutations=19)
    x, y = (as_rows(states(scope), tokens, skip_first) for scope in scopes)
    unit = np.repeat(np.arange(8), SAMPLES.lengths.numpy()) if tokens == "all" else np.arange(8)
    kept = np.triu(unit[:, None] != unit)

    def table(z):
        if distance == "euclidean":
            return np.linalg.norm(z[:, None] - z, axis=2)[kept]
        z = z - z.mean(1, keepdims=True) if distance == "correlation" else z
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        return (1 - z @ z.T)[kept]

    expected = [[spearmanr(table(a), table(b)).statistic for b in y] for a in x]
    assert np.allclose(found["similarity"], expected, atol=2e-4)  # two nearly equal distances may change places
    assert ((found["ci_low"] < found["similarity"]) & (found["similarity"] < found["ci_high"])).all()
    if tokens == "all":
        assert found["p_value"].isnull().all() and "different lengths" in said(found)["undefined"]["p_value"]
    else:
        assert ((found["p_value"] >= 0.05) & (found["p_value"] <= 1)).all()


def test_the_seed_draws_what_is_drawn(scopes):
    p = [similarity(*scopes, SAMPLES, seed=seed)["p_value"] for seed in (0, 0, 1)]
    assert p[0].equals(p[1]) and not p[0].equals(p[2])
    with ts.options(seed=1):
        assert similarity(*scopes, SAMPLES)["p_value"].equals(p[2])
    assert "p_value" not in similarity(*scopes, SAMPLES, permutations=0)


def test_constant_layers_say_why_there_is_no_number():
    model = nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 6), nn.Linear(6, 3))
    model[1].weight.data.zero_()
    scope, other = ts.Scope(model), ts.Scope(build("mlp"))
    samples = ts.Samples.tensors(torch.randn(9, 10, generator=torch.Generator().manual_seed(0)))
    for recipe, name in ((cka, "cka"), (similarity, "similarity")):
        found = recipe(scope, other, samples)
        assert found[name].isnull().all("layer_b").values.tolist() == [False, True, True]
        assert np.isfinite(found[name].sel(layer_a=0)).all() and np.isfinite(found["ci_low"].sel(layer_a=0)).all()
        reason = "its activations are the same on every row"
        assert said(found)["undefined"] == {"layer_a 1": reason, "layer_a 2": reason}


def test_layers_without_a_dissimilarity_or_without_a_kernel_say_why_there_is_no_number():
    x = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    x[3] = 0
    scope = ts.Scope(nn.Sequential(nn.Linear(12, 12, bias=False), nn.Linear(12, 1)))
    for distance, why in (("cosine", "one is zero"), ("correlation", "the same on every neuron")):
        found = similarity(scope, samples=ts.Samples.tensors(x), distance=distance)
        undefined = said(found)["undefined"]
        assert found["similarity"].isnull().any() and all(why in words for words in undefined.values())
        for i in np.flatnonzero(np.isnan(np.diag(found["similarity"]))):
            assert {f"layer_a {i}", f"layer_b {i}"} <= undefined.keys()
    apart = ts.Samples.tensors(torch.eye(12))
    turned = torch.linalg.qr(scope.model[0].weight.data)[0]
    scope.model[0].weight.data.copy_(turned)
    for recipe, name, options in ((cka, "cka", {}), (similarity, "similarity", {"distance": "euclidean"})):
        found = recipe(scope, samples=apart, **options)
        assert np.isnan(found[name].values).tolist() == [[True, True], [True, False]]
        assert list(said(found)["undefined"]) == ["layer_a 0", "layer_b 0"]


def test_a_layer_of_which_only_the_first_token_varies_has_no_number_without_it():
    model = random_gpt2(0, n_layer=1, tie_word_embeddings=False)
    model.transformer.h[0].mlp.c_proj.weight.data.zero_()
    model.transformer.h[0].attn.c_proj.weight.data.zero_()
    model.transformer.wpe.weight.data.zero_()
    model.transformer.wte.weight.data[20:] = 1.5
    ids = IDS % 30 + 20
    ids[:, 0] = torch.arange(8)
    found = cka(ts.Scope(model), ts.Scope(random_gpt2(1, n_layer=1)), ts.Samples.tokens(ids))
    assert np.isfinite(found["cka"]).all() and found["cka_without_first"].isnull().all()
    assert list(said(found)["undefined"]) == ["layer_a 0 without its first tokens"]


def test_samples_with_one_token_are_left_out_of_what_has_no_first(scopes):
    mask = MASK.clone()
    mask[:3, 1:] = 0
    found = cka(*scopes, ts.Samples.tokens(IDS, mask))
    rest = cka(*scopes, SAMPLES[3:], skip_first=True)
    assert np.allclose(found["cka_without_first"], rest["cka"], atol=1e-5)
    assert np.allclose(found["cka_without_first_ci_low"], rest["ci_low"], atol=1e-5)
    mask[:5, 1:] = 0
    found = cka(*scopes, ts.Samples.tokens(IDS, mask))
    assert found["cka_without_first"].isnull().all() and np.isfinite(found["cka"]).all()
    assert said(found)["undefined"]["cka_without_first"].startswith("3 samples")
    found = cka(*scopes, ts.Samples.tokens(IDS[:, :1]))
    assert found["cka_without_first"].isnull().all() and np.isfinite(found["cka"]).all()
    assert said(found)["undefined"] == {"cka_without_first": "0 samples have a second token, and 4 are needed"}
    with pytest.raises(ValueError, match="'samples-0' has one token"):
        cka(*scopes, ts.Samples.tokens(IDS, mask), skip_first=True)


def test_the_result_names_both_models_and_their_weights(scopes):
    for recipe in (cka, similarity):
        found = said(recipe(*scopes, SAMPLES))
        one, other = (said(recipe(scope, samples=SAMPLES))["weights"] for scope in scopes)
        assert (found["weights"], found["weights_b"]) == (one, other) and one != other
        assert found["model_b"] == scopes[1].name and found["n_used"] == 8


class _Other:
    """A tokenizer with other tokens than any that is at hand: every two characters are one."""

    pad_token_id, mask_token_id, all_special_ids = 0, None, ()

    def __init__(self):
        self.known = {a + b: 1 + 27 * i + j for i, a in enumerate(ALPHABET) for j, b in enumerate(ALPHABET)}

    def get_vocab(self):
        return self.known

    def __len__(self):
        return 1 + len(self.known)

    def __call__(self, text, verbose=True):
        text = text + " " * (len(text) % 2)
        return {"input_ids": [self.known[text[i : i + 2]] for i in range(0, len(text), 2)]}

    def encode(self, text):
        return self(text)["input_ids"]

    def batch_decode(self, rows, **options):
        names = {number: name for name, number in self.known.items()}
        return ["".join(names[i] for i in row) for row in rows]

    def convert_ids_to_tokens(self, ids):
        return self.batch_decode([[i] for i in ids])


ALPHABET = "abcdefghijklmnopqrstuvwxyz "


@pytest.fixture(scope="module")
def two_tokenizers():
    return ts.load("tiny"), ts.Scope(random_gpt2(vocab_size=740), _Other(), name="by twos")


def test_each_model_reads_texts_by_its_own_tokenizer(two_tokenizers):
    tiny, twos = two_tokenizers
    found = cka(tiny, twos, TEXTS, tokens="mean")
    x, y = (as_rows(states(s, s.samples(TEXTS)), "mean") for s in two_tokenizers)
    expected = [[of_kernels(a, b, np.arange(6), True) for b in y] for a in x]
    assert np.allclose(found["cka"], expected, atol=1e-5)
    assert found.equals(cka(tiny, twos, tiny.samples(TEXTS), tokens="mean")), "Samples that carry whole texts are read again"
    assert similarity(tiny, twos, TEXTS, tokens="last")["similarity"].shape == (2, 2)


@pytest.mark.parametrize("recipe", [cka, similarity])
def test_what_two_models_do_not_both_understand_is_an_error(two_tokenizers, recipe):
    tiny, twos = two_tokenizers
    with pytest.raises(ValueError, match=r'by twos reads the texts as other tokens than tiny.*tokens="mean"'):
        recipe(tiny, twos, TEXTS, tokens="all")
    with pytest.raises(ValueError, match=r"another tokenizer than tiny.*carry no texts.*give texts"):
        recipe(tiny, twos, ts.Samples.tokens(IDS), tokens="mean")
    with pytest.raises(ValueError, match=r"their texts are not whole.*give texts"):
        recipe(tiny, twos, tiny.samples(TEXTS, max_length=2), tokens="mean")
    small = ts.Scope(random_gpt2(vocab_size=30))
    with pytest.raises(ValueError, match="outside the model's vocabulary of 30"):
        recipe(ts.Scope(random_gpt2()), small, SAMPLES, tokens="mean")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tokens": "first"}, ValueError, "tokens is 'first': choose 'all', 'mean', 'last'"),
        ({"sites": "attn.pattern"}, ValueError, "name one site of a layer"),
        ({"sites": "*"}, ValueError, "name one site of a layer"),
        ({"sites": 3}, ValueError, "sites is 3: name one site of a layer"),
        ({"sites": "mlp.pre_linear"}, LookupError, "its MLP is not gated"),
        ({"chunk": 0}, ValueError, "chunk is 0"),
        ({"token": "mean"}, TypeError, "has no option token"),
    ],
)
@pytest.mark.parametrize("recipe", [cka, similarity])
def test_what_is_misspelt_is_said(scopes, recipe, options, error, says):
    with pytest.raises(error, match=says):
        recipe(*scopes, SAMPLES, **options)


@pytest.mark.parametrize("recipe", [cka, similarity])
def test_wrong_arguments(scopes, recipe):
    one, other = scopes
    with pytest.raises(ValueError, match="estimator is 'debiased'"):
        cka(one, other, SAMPLES, estimator="debiased")
    with pytest.raises(ValueError, match="distance is 'cosin': choose 'correlation'"):
        similarity(one, other, SAMPLES, distance="cosin")
    with pytest.raises(ValueError, match="compare is 'kendall'"):
        similarity(one, other, SAMPLES, compare="kendall")
    with pytest.raises(ValueError, match="permutations is -1"):
        similarity(one, other, SAMPLES, permutations=-1)
    with pytest.raises(TypeError, match=r"scope_b is a Samples: .*\(scope, samples=…\)"):
        recipe(one, SAMPLES)
    with pytest.raises(TypeError, match="samples are missing"):
        recipe(one, other)
    with pytest.raises(TypeError, match="takes a Scope"):
        recipe(random_gpt2(), other, SAMPLES)
    for n, says in ((1, "there is 1 sample: this takes at least 4"), (3, "there are 3 samples")):
        with pytest.raises(ValueError, match=says):
            recipe(one, other, SAMPLES[:n])
    with pytest.raises(ts.UnsupportedModel, match="no layers"):
        recipe(ts.Scope(nn.LSTM(4, 3)), samples=ts.Samples.tensors(torch.zeros(5, 2, 4)))
    with pytest.raises(ValueError, match="has no positions"):
        recipe(ts.Scope(build("mlp")), samples=ts.Samples.tensors(torch.randn(6, 10)), skip_first=True)


def test_what_takes_too_much_memory_is_refused_before_it_is_taken(scopes):
    with (
        ts.options(memory=4096),
        pytest.raises(ValueError, match=r"the rows of 8 samples in . layers take .* more than the memory option"),
    ):
        cka(*scopes, SAMPLES, chunk=1)
    with ts.options(memory=40_000):
        assert np.isfinite(similarity(*scopes, SAMPLES)["similarity"]).all()
        with pytest.raises(ValueError, match=r'the dissimilarities of 75 rows take .* tokens="mean" or "last"'):
            similarity(*scopes, SAMPLES, tokens="all")


def test_activations_that_are_not_finite_are_named():
    model = build("mlp")
    model[0].weight.data.fill_(1e38)
    with pytest.raises(ValueError, match=r"layers\.0\.out of Sequential is not finite"):
        cka(ts.Scope(model), samples=ts.Samples.tensors(torch.full((6, 10), 10.0)))


@pytest.mark.parametrize("recipe, measure", [(cka, "cka"), (similarity, "similarity")])
def test_the_view_is_a_matrix_of_what_the_recipe_is_about(scopes, recipe, measure):
    found = recipe(*scopes, SAMPLES)
    for view in (ts.view(found), found.ts.view()):
        assert repr(view) == f"Matrix({measure})"
        assert (view.options["y"], view.options["x"]) == ("layer_a", "layer_b")
        assert view.options["companions"][measure]["low"] == "ci_low" and view.options["companions"][measure]["high"] == "ci_high"
    if recipe is cka:
        assert ts.view(found).options["variables"] == ["cka", "cka_without_first"]
        assert ts.view(found).options["companions"]["cka_without_first"]["low"] == "cka_without_first_ci_low"
