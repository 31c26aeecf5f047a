import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def test_reads_equal_record(scope):
    record = scope.record(IDS, ["embed", "layers.0.attn.*", "layers.1.resid_mid", "layers.1.mlp.post", "final_norm", "logits"])
    with scope.trace(IDS):
        embed = scope.embed.save()
        q = scope.layers[0].attn.q.save()
        scores = scope.layers[0].attn.scores.save()
        pattern = scope.layers[0].attn.pattern.save()
        z = scope.layers[0].attn.z.save()
        out = scope.layers[0].attn.out.save()
        mid = scope.layers[1].resid_mid.save()
        post = scope.layers[1].mlp.post.save()
        norm = scope.final_norm.save()
        logits = scope.logits.save()
    found = {"embed": embed, "layers.0.attn.q": q, "layers.0.attn.scores": scores, "layers.0.attn.pattern": pattern, "layers.0.attn.z": z,
             "layers.0.attn.out": out, "layers.1.resid_mid": mid, "layers.1.mlp.post": post, "final_norm": norm, "logits": logits}  # fmt: skip
    for site, value in found.items():
        assert torch.allclose(value, record[site], atol=1e-5), site


def test_writes_equal_record_edits(scope):
    with scope.trace(IDS):
        scope.layers[0].attn.pattern[:, 2] = 0.25
        scope.layers[0].attn.z[:, :, 1] *= 2
        scope.layers[1].mlp.out = 0
        logits = scope.logits.save()

    def pattern(a):
        a[:, 2] = 0.25
        return a

    def double(z):
        z[:, :, 1] *= 2
        return z

    edits = {"layers.0.attn.pattern": pattern, "layers.0.attn.z": double, "layers.1.mlp.out": lambda x: x * 0}
    assert torch.allclose(logits, scope.record(IDS, "logits", edits=edits)["logits"], atol=1e-5)


def test_gradients_equal_record(scope):
    sites = ["layers.0.attn.pattern", "layers.0.attn.z", "layers.1.resid_post"]
    record = scope.record(IDS, sites, gradients=True)
    with scope.trace(IDS):
        pattern = scope.layers[0].attn.pattern
        z = scope.layers[0].attn.z
        post = scope.layers[1].resid_post
        logits = scope.logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none").mean(1).sum()
        with loss.backward():
            of_post = post.grad.save()
            of_z = z.grad.save()
            of_pattern = pattern.grad.save()
    for site, found in zip(sites, [of_pattern, of_z, of_post]):
        assert torch.allclose(found, record.gradients[site], atol=1e-6), site


def test_an_edit_followed_by_a_backward(scope):
    """Writing into the softmax's result before a backward is safe, and the gradient is the edited model's."""

    def edit(a):
        a[:, 0] = 0
        return a

    expected = scope.record(IDS, "layers.0.resid_pre", gradients=True, edits={"layers.1.attn.pattern": edit}).gradients[
        "layers.0.resid_pre"
    ]
    with scope.trace(IDS):
        first = scope.layers[0].resid_pre
        scope.layers[1].attn.pattern[:, 0] = 0
        logits = scope.logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none").mean(1).sum()
        with loss.backward():
            found = first.grad.save()
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda s: s.layers[0].attn.z, "live only inside"),
        (lambda s: s.logits, "logits is live only inside"),
        (lambda s: s.layers[2], "there is no layer 2: the model has layers 0 to 1"),
        (lambda s: s.layers[0].attn.zz, "layers.0.attn has no site 'zz': it has q, k, v, scores, pattern, z, out"),
        (lambda s: s.layers[0].mlp.pre_linear, r"its MLP is not gated"),
        (lambda s: s.heads, "Scope has no 'heads'"),
        (lambda s: s.trace(torch.full((1, 4), 99)), "outside the model's vocabulary"),
    ],
)
def test_bad_use_is_one_clear_line(scope, read, says):
    with pytest.raises((ValueError, LookupError, AttributeError), match=says):
        read(scope)


def test_an_error_in_the_block_reaches_the_user_and_the_next_trace_works(scope):
    with pytest.raises(Exception, match="my own error"), scope.trace(IDS):
        scope.layers[0].attn.z.save()
        raise RuntimeError("my own error")
    with scope.trace(IDS):
        logits = scope.logits.save()
    assert torch.allclose(logits, scope.record(IDS, "logits")["logits"], atol=1e-5)


def test_what_was_saved_stays_as_it_was(scope):
    clean = scope.record(IDS, "layers.0.attn.z")["layers.0.attn.z"]
    with scope.trace(IDS):
        saved = scope.layers[0].attn.z.save()
        scope.layers[0].attn.z[:, :, 0] = 0
        zeroed = scope.layers[0].attn.z.save()
        scope.layers[0].attn.z = saved * 0
        logits = scope.logits.save()
    assert torch.allclose(saved, clean, atol=1e-5)
    assert torch.equal(zeroed[:, :, 1:], saved[:, :, 1:]) and not zeroed[:, :, 0].any()
    assert torch.allclose(logits, scope.record(IDS, "logits", edits={"layers.0.attn.z": lambda z: z * 0})["logits"], atol=1e-5)


def test_several_writes_and_reads_of_one_site_add_up(scope):
    def edit(z):
        z[:, :, 0] = 0
        z[:, :, 1] += z[:, :, 2]
        return z

    with scope.trace(IDS):
        scope.layers[0].attn.z[:, :, 0] = 0
        scope.layers[0].attn.z[:, :, 1] += scope.layers[0].attn.z[:, :, 2]
        logits = scope.logits.save()
    assert torch.allclose(logits, scope.record(IDS, "logits", edits={"layers.0.attn.z": edit})["logits"], atol=1e-5)


@pytest.mark.parametrize("site", ["embed", "final_norm", "logits"])
def test_the_sites_outside_the_layers_can_be_written(scope, site):
    with scope.trace(IDS) as tracer:
        setattr(scope, site, getattr(scope, site) * 0.5)
        logits = tracer.result.logits.save()
    assert torch.allclose(logits, scope.record(IDS, "logits", edits={site: lambda x: x * 0.5})["logits"], atol=1e-5)
    with pytest.raises(ValueError, match="live only inside"):
        getattr(scope, site)


def test_a_write_that_comes_too_late_is_said(scope):
    with pytest.warns(UserWarning, match=r"layers\.0\.attn\.z was written after the model had run past it"), scope.trace(IDS):
        z = scope.layers[0].attn.z
        scope.layers[1].resid_post.save()
        z[...] = 0


def test_the_model_is_not_run_inside_its_own_run(scope):
    with pytest.raises(Exception, match="the model is in the middle of a run"), scope.trace(IDS):
        scope.losses(IDS)
    with pytest.raises(ValueError, match="the model is in the middle of a run"):
        scope.record(IDS, "logits", edits={"layers.0.attn.z": lambda z: z * scope.losses(IDS).mean()})
    assert scope.losses(IDS).isfinite().all()
