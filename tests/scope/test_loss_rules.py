import numpy as np
import pandas as pd
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import tensorscope_nb as ts

X = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 1, 0, 2])
IDS = torch.randint(1, 50, (5, 14), generator=torch.Generator().manual_seed(1))


def test_integer_targets_are_cross_entropy_per_sample():
    model = build("mlp")
    expected = cross_entropy(model(X), Y, reduction="none")
    scope = ts.Scope(model)
    for data in ((X, Y), ts.Samples.tensors(X, Y), DataLoader(TensorDataset(X, Y), batch_size=4)):
        assert torch.allclose(scope.losses(data), expected, atol=1e-6)
    assert torch.allclose(scope.losses((X, Y), chunk=1), expected, atol=1e-6)


def test_a_loss_of_the_users_own():
    model = build("mlp")
    targets = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    scope = ts.Scope(model, loss=lambda output, y: ((output - y) ** 2).mean(1))
    assert torch.allclose(scope.losses((X, targets)), ((model(X) - targets) ** 2).mean(1), atol=1e-6)
    gradients = scope.record((X, targets), "layers.1.out", gradients=True).gradients["layers.1.out"]
    hidden = model[:3](X).detach().requires_grad_(True)
    ((model[3:](hidden) - targets) ** 2).mean(1).sum().backward()
    assert torch.allclose(gradients, hidden.grad, atol=1e-6)


def test_a_cnn_with_batch_norm_is_evaluated_and_left_in_training():
    model = build("cnn").train()
    images, labels = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 3])
    running = model[1].running_mean.clone()
    losses = ts.Scope(model).losses((images, labels))
    assert model.training and torch.equal(running, model[1].running_mean)
    assert torch.allclose(losses, cross_entropy(model.eval()(images), labels, reduction="none"), atol=1e-6)


def test_image_and_text_classifiers_take_batches_with_labels():
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 3])
    vit = ts.Scope(build("vit"))
    with torch.no_grad():
        expected = cross_entropy(vit.model(images).logits, labels, reduction="none")
    assert torch.allclose(vit.losses({"pixel_values": images, "labels": labels}), expected, atol=1e-5)
    assert torch.allclose(vit.losses((images, labels)), expected, atol=1e-5)
    bert = ts.Scope(build("bert classifier"))
    batch = {
        "input_ids": IDS[:4],
        "attention_mask": torch.ones_like(IDS[:4]),
        "token_type_ids": torch.ones_like(IDS[:4]),
        "labels": labels,
    }
    with torch.no_grad():
        logits = bert.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    assert torch.allclose(bert.losses(batch), cross_entropy(logits, labels, reduction="none"), atol=1e-5)


def test_a_masked_model_with_labels():
    scope = ts.Scope(build("bert"))
    labels = torch.full_like(IDS, -100)
    labels[0, [3, 5]], labels[1:, 4] = IDS[0, [3, 5]], IDS[1:, 4]
    found = scope.losses(ts.Samples.tokens(IDS, labels=labels))
    for i in range(5):
        with torch.no_grad():
            own = scope.model(IDS[i : i + 1], labels=labels[i : i + 1]).loss
        assert torch.allclose(found[i], own, atol=1e-5)


class Tokenizer:
    mask_token_id = 49


def test_a_masked_model_without_labels_masks_by_sample_and_seed():
    from tensorscope_nb.scope.loss import masked

    scope = ts.Scope(build("bert"), Tokenizer())
    samples = ts.Samples.tokens(IDS)
    prepared = masked(samples, 49, 0)
    chosen = prepared.labels != -100
    assert (chosen.sum(1) == 2).all() and not chosen[:, [0, -1]].any()  # 15 % of 12 inner tokens
    assert (prepared.input_ids[chosen] == 49).all() and torch.equal(prepared.labels[chosen], IDS[chosen])
    assert torch.equal(prepared.input_ids[~chosen], IDS[~chosen])
    found = scope.losses(samples)
    assert torch.allclose(scope.losses(samples[[4, 2, 0]]), found[[4, 2, 0]], atol=1e-5)  # neither order nor cut matters
    assert torch.allclose(scope.losses(samples, chunk=2), found, atol=1e-5)
    with ts.options(seed=1):
        assert not torch.allclose(scope.losses(samples), found)
    with pytest.raises(ts.UnsupportedModel, match="no mask token"):
        ts.Scope(build("bert")).losses(samples)


def test_forward_only_recipes_need_no_labels_and_no_head():
    patterns = ts.recipes.attention_patterns(ts.Scope(build("bert headless")), IDS)
    assert np.allclose(patterns["pattern"].sum("key"), 1, atol=1e-5)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert np.allclose(ts.recipes.attention_patterns(ts.Scope(build("vit")), images)["pattern"].sum("key"), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "resample", "zero"])
def test_ablation_of_a_vision_model(method):
    scope = ts.Scope(build("vit"))
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 3])
    found = ts.recipes.ablation(scope, (images, labels), method=method, per_sample=True)
    z = scope.record(images, "layers.1.attn.z")["layers.1.attn.z"][:, :, 2]
    from tensorscope_nb.recipes.ablation import _donors

    stand_in = {"mean": z.mean((0, 1)).expand_as(z), "resample": z[_donors(4, 0)], "zero": torch.zeros_like(z)}[method]

    def edit(value):
        value[:, :, 2] = stand_in
        return value

    expected = scope.losses((images, labels), edits={"layers.1.attn.z": edit}) - scope.losses((images, labels))
    assert np.allclose(found["loss_increase_by_sample"].sel(layer=1, head=2), expected, atol=1e-5)


def test_a_table_with_labels():
    class Columns:  # as datasets.Dataset has them
        column_names = ("text", "label")

        def __getitem__(self, name):
            return {"text": ["one", "two"], "label": [1, 0]}[name]

    tiny = ts.load("tiny")
    for table in (pd.DataFrame({"text": ["one", "two"], "label": [1, 0]}), Columns()):
        samples = tiny.samples(table, task="pairs")
        assert samples.labels.tolist() == [1, 0] and samples.texts == ("one", "two") and samples.ids == ("pairs-0", "pairs-1")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ts.Scope(build("mlp")).losses(X), ts.UnsupportedModel, "no loss: the samples have no targets; pass loss="),
        (lambda: ts.Scope(build("mlp")).losses((X, torch.randn(6))), ts.UnsupportedModel, r"cross-entropy needs integer targets \(n,\)"),
        (lambda: ts.Scope(build("mlp")).losses((X, Y + 1)), ValueError, "target 3 is outside the 3 classes"),
        (lambda: ts.Scope(build("mlp"), loss=lambda o, y: o.sum()).losses((X, Y)), ValueError, r"loss= returned \(\) for 6 samples"),
        (lambda: ts.Scope(build("bert headless")).losses(IDS), ts.UnsupportedModel, "no loss: the model has no head"),
        (lambda: ts.Scope(build("mlp")).perplexity((X, Y)), ts.UnsupportedModel, "no loss per token"),
        (lambda: ts.recipes.ablation(ts.Scope(build("mlp")), (X, Y)), ts.UnsupportedModel, "no heads: Sequential is no transformer"),
        (lambda: ts.recipes.induction_heads(ts.Scope(build("mlp"))), ts.UnsupportedModel, "no heads"),
        (lambda: ts.Scope(build("mlp")).anatomy.slice(0, "Q", 0), ts.UnsupportedModel, "no heads"),
        (lambda: ts.Scope(random_gpt2().to("meta")), ts.UnsupportedModel, "on the meta device and holds no numbers"),
    ],
)  # fmt: skip
def test_what_has_no_loss_or_no_heads_says_so_in_one_line(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_quantised_module_is_refused():
    model = random_gpt2()
    kind = type("Linear4bit", (torch.nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})
    model.transformer.h[0].mlp.extra = kind(2, 2)
    with pytest.raises(ts.UnsupportedModel, match=r"transformer\.h\.0\.mlp\.extra is quantised \(Linear4bit\)"):
        ts.Scope(model)


@pytest.mark.parametrize("name", ["gpt2", "llama tied", "gpt_neox", "bert classifier", "vit", "mlp", "cnn"])
def test_per_sample_gradients_sum_to_the_batch_gradient_and_each_is_its_own(name):
    model = build(name)
    scope = ts.Scope(model)
    images = torch.rand(4, *((3, 8, 8) if name == "vit" else (1, 8, 8)), generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 0])
    data = {"bert classifier": lambda: ts.Samples.tokens(IDS[:4], labels=labels), "mlp": lambda: ts.Samples.tensors(X[:4], Y[:4])}
    samples = data.get(
        name, lambda: ts.Samples.tensors(images, labels) if name in ("vit", "cnn") else ts.Samples.tokens(IDS[:4])
    )()
    found = scope.per_sample_gradients(samples)
    assert list(found) == [n for n, _ in model.named_parameters()]
    model.zero_grad()
    scope.rule.per_sample(model_output(scope, samples), samples).sum().backward()
    for parameter, value in found.items():
        total = dict(model.named_parameters())[parameter].grad
        assert torch.allclose(value.sum(0), torch.zeros_like(value[0]) if total is None else total, atol=1e-4), parameter
    alone = scope.per_sample_gradients(samples[2])
    assert all(torch.allclose(alone[p][0], found[p][2], atol=1e-5) for p in found)


def model_output(scope, samples):
    from tensorscope_nb.scope.forward import output_of

    return output_of(scope.model, samples, scope.anatomy)


def test_per_sample_gradients_equal_vmap_of_grad():
    model = build("mlp")
    parameters = dict(model.named_parameters())

    def loss(p, x, y):
        return cross_entropy(torch.func.functional_call(model, p, x[None]), y[None])

    expected = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, X, Y)
    found = ts.Scope(model).per_sample_gradients((X, Y))
    assert all(torch.allclose(found[n], expected[n], atol=1e-6) for n in parameters)


def test_per_sample_gradients_of_chosen_modules():
    scope = ts.Scope(random_gpt2())
    found = scope.per_sample_gradients(IDS, "transformer.h.*.attn.c_attn")
    assert list(found) == [f"transformer.h.{i}.attn.c_attn.{kind}" for i in range(2) for kind in ("weight", "bias")]
    assert list(scope.per_sample_gradients(IDS, ["transformer.h.1.ln_1.bias", "lm_head"])) == [  # one by one; tied, by any name
        "transformer.wte.weight", "transformer.h.1.ln_1.bias",
    ]  # fmt: skip
    for wrong, says in {
        "h.0": "there is no module or parameter 'h.0': did you mean transformer.h.0 or transformer.h.1?",
        "*.c_atn": r"there is no module or parameter '\*.c_atn': did you mean transformer.h.0.attn.c_attn",
        "transformer.h.0": r"'transformer.h.0' has no weights itself: for those of the modules in it give 'transformer.h.0.\*'",
    }.items():
        with pytest.raises(LookupError, match=says):
            scope.per_sample_gradients(IDS, wrong)
    with pytest.raises(LookupError, match=r"there is no module or parameter 'transformer.wtee': did you mean transformer.wte"):
        scope.per_sample_gradients(IDS, ["transformer.wpe", "transformer.wtee"])  # one of two is misspelt
    for p in scope.model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="all parameters are frozen"):
        scope.per_sample_gradients(IDS)


def test_a_tokenizer_of_another_model_is_noticed():
    with pytest.warns(UserWarning, match="the tokenizer has 512 tokens and the model knows 50: do they belong together"):
        scope = ts.Scope(random_gpt2(), ts.load("tiny").tokenizer)
    with pytest.raises(ValueError, match=r"token id \d+ is outside the model's vocabulary of 50"):
        scope.losses(["The cat sat on the mat"])
