import contextlib

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


def test_sites_out_of_order_are_said_by_their_names(scope):
    with (
        pytest.raises(ValueError, match=r"layers\.0\.attn\.z was asked for too late: the model stands at layers\.1\.attn\.z"),
        scope.trace(IDS),
    ):
        scope.layers[1].attn.z
        scope.layers[0].attn.z
    with (
        pytest.raises(ValueError, match=r"layers\.0\.attn\.q was asked for too late: the model stands at layers\.0\.mlp\.out"),
        torch.no_grad(),
        scope.trace(IDS),
    ):
        scope.layers[0].mlp.out
        scope.layers[0].attn.q
    with (
        pytest.raises(ValueError, match="embed was asked for too late: the model has come to its end"),
        scope.trace(IDS) as tracer,
    ):
        tracer.result
        scope.embed


def test_modules_by_their_paths(scope):
    paths = ["transformer.h.0.attn.c_attn", "layers.1.ln_1"]
    record = scope.record(IDS, paths)
    with scope.trace(IDS):
        found = [scope.live(path) for path in paths]
        scope.write("transformer.h.1.mlp.act", 0)
        logits = scope.logits
    for path, value in zip(paths, found):
        assert torch.allclose(value, record[path], atol=1e-5)
    edited = scope.record(IDS, "logits", edits={"transformer.h.1.mlp.act": lambda x: x * 0})["logits"]
    assert torch.allclose(logits, edited, atol=1e-5)
    with pytest.raises(LookupError, match=r"'layers\.\*\.mlp\.out' names 2 sites"), scope.trace(IDS):
        scope.live("layers.*.mlp.out")


def test_parts_of_one_tensor_are_edited_apart():
    """Phi-3's gate and linear branch are halves of one projection."""
    import model_zoo

    scope = ts.Scope(model_zoo.build("phi3"))
    with scope.trace(IDS):
        mlp = scope.layers[0].mlp
        gate, linear = mlp.pre, mlp.pre_linear
        gate *= 2
        linear[..., :3] = 0
        logits = scope.logits

    def cut(x):
        x[..., :3] = 0
        return x

    edits = {"layers.0.mlp.pre": lambda x: x * 2, "layers.0.mlp.pre_linear": cut}
    assert torch.allclose(logits, scope.record(IDS, "logits", edits=edits)["logits"], atol=1e-5)
    assert not torch.allclose(logits, scope.record(IDS, "logits")["logits"], atol=1e-2)


@pytest.mark.parametrize("grad", [False, True])
def test_a_write_through_data_reaches_the_model(scope, grad):
    with torch.set_grad_enabled(grad), scope.trace(IDS):
        scope.layers[0].attn.z.data[:, :, 0] = 0
        logits = scope.logits

    def zero(z):
        z[:, :, 0] = 0
        return z

    assert torch.allclose(logits, scope.record(IDS, "logits", edits={"layers.0.attn.z": zero})["logits"], atol=1e-5)


def test_a_value_that_does_not_fit_is_said_where_it_is_written(scope):
    with (
        pytest.raises(ValueError, match=r"layers\.0\.attn\.z was given shape \(3, 12\), and has shape \(3, 12, 3, 8\)"),
        scope.trace(IDS),
    ):
        scope.layers[0].attn.z = torch.zeros(3, 12)
    with pytest.raises(ValueError, match=r"layers\.0\.attn\.z was given a str"), scope.trace(IDS):
        scope.layers[0].attn.z = "zero"


def test_the_blocks_own_calls_of_the_model_are_its_own(scope):
    """The logit lens: parts of the model are called in the block, and are no part of the run."""
    streams = scope.record(IDS, "layers.0.resid_post")["layers.0.resid_post"]
    body = scope.model.transformer
    with scope.trace(IDS):
        early = scope.model.lm_head(body.ln_f(scope.layers[0].resid_post))
        whole = scope.model(IDS).logits
        logits = scope.logits
    assert torch.allclose(early, scope.model.lm_head(body.ln_f(streams)), atol=1e-5)
    assert torch.allclose(whole, logits, atol=1e-5)


def test_a_backward_without_a_block_and_gradients_in_any_order(scope):
    record = scope.record(IDS, ["layers.0.attn.z", "layers.1.resid_post"], gradients=True)
    with scope.trace(IDS):
        z, post = scope.layers[0].attn.z, scope.layers[1].resid_post
        loss = scope.logits[:, :-1].transpose(1, 2)
        torch.nn.functional.cross_entropy(loss, IDS[:, 1:], reduction="none").mean(1).sum().backward()
    assert torch.allclose(z.grad, record.gradients["layers.0.attn.z"], atol=1e-6)
    assert torch.allclose(post.grad, record.gradients["layers.1.resid_post"], atol=1e-6)
    assert all(p.grad is None for p in scope.model.parameters())


def test_a_second_derivative(scope):
    """Attention stays in the open where gradients are on."""
    with scope.trace(IDS):
        z = scope.layers[0].attn.z
        (slope,) = torch.autograd.grad(scope.logits.square().mean(), z, create_graph=True)
        (curve,) = torch.autograd.grad(slope.square().sum(), z)
    assert curve.isfinite().all() and curve.abs().max() > 0


def test_a_gradient_cannot_be_changed_in_silence(scope):
    with pytest.raises(ValueError, match="a gradient was written inside"), scope.trace(IDS):
        z = scope.layers[0].attn.z
        with scope.logits.sum().backward():
            z.grad = z.grad * 2
    with scope.trace(IDS):
        first, z = scope.layers[0].resid_pre, scope.layers[1].attn.z
        z.register_hook(lambda gradient: gradient * 0)
        scope.logits.sum().backward()
    record = scope.record(IDS, "layers.0.resid_pre")  # the same, through a detached z
    with scope.trace(IDS):
        expected = scope.layers[0].resid_pre
        scope.layers[1].attn.z = scope.layers[1].attn.z.detach()
        scope.logits.sum().backward()
    assert torch.allclose(first, record["layers.0.resid_pre"], atol=1e-6)
    assert torch.allclose(first.grad, expected.grad, atol=1e-6)


def test_a_loss_without_a_gradient_is_said(scope):
    with pytest.raises(ValueError, match="carries no gradient"), torch.no_grad(), scope.trace(IDS):
        scope.logits.sum().backward()


class Calls:
    """Counts how often each module runs."""

    def __init__(self, model):
        self.names = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda module, args, name=name: self.names.append(name))


def test_stop_runs_no_later_layer_and_keeps_what_was_read(scope):
    calls = Calls(scope.model)
    with scope.trace(IDS) as tracer:
        z = scope.layers[0].attn.z.save()
        tracer.stop()
        z = None
    assert "transformer.h.0.attn.c_attn" in calls.names
    assert not {"transformer.h.0.mlp", "transformer.h.1", "lm_head"} & set(calls.names)
    assert torch.allclose(z, scope.record(IDS, "layers.0.attn.z")["layers.0.attn.z"], atol=1e-6)


def test_stop_passes_a_handler_of_the_users(scope):
    came = []
    with scope.trace(IDS) as tracer:
        try:
            scope.embed
            came.append("read")
            tracer.stop()
        except Exception:
            came.append("stop was taken for an error")
        came.append("the block went on")
    assert came == ["read"]


def test_the_model_runs_to_its_end_without_stop(scope):
    calls = Calls(scope.model)
    with scope.trace(IDS):
        scope.embed
    assert calls.names[-1] == "lm_head"


def test_an_error_of_the_model_comes_out_where_it_was_caused(scope):
    scope.model.transformer.h[1].register_forward_pre_hook(lambda module, args: args[0] @ torch.zeros(1, 2))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"), scope.trace(IDS):
            scope.layers[0].attn.z
            scope.logits
    with scope.trace(IDS):
        z = scope.layers[0].attn.z
        with pytest.raises(RuntimeError):
            scope.logits
    assert z.isfinite().all()


def test_what_is_not_asked_for_does_not_change_the_model(scope):
    """Bit-equal to the bare model where attention stays closed; the open one agrees with ``record``."""
    with torch.no_grad(), scope.trace(IDS):
        early = scope.layers[0].resid_post
        logits = scope.logits
    with torch.no_grad():
        bare = scope.model(IDS, use_cache=False, output_hidden_states=True)
    assert torch.equal(logits, bare.logits) and torch.equal(early, bare.hidden_states[1])


FAMILIES = ["gpt2", "llama", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gpt_neox", "bert", "vit"]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_as_record_does(family, grad):
    """All layers at once and each site alone: attention opens for one and not for the next."""
    import model_zoo

    scope = ts.Scope(model_zoo.build(family))
    if family == "vit":
        samples = ts.Samples.tensors({"pixel_values": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    else:
        mask = torch.ones_like(IDS)
        mask[0, 9:] = mask[1, :3] = 0  # padding on the right, and on the left
        samples = ts.Samples.tokens(IDS, mask)
    record = scope.record(samples, list(scope.anatomy.sites))
    seen = torch.ones(1) if family == "vit" else samples.attention_mask
    for sites in (
        [s for s in scope.anatomy.sites if s.endswith(("pattern", "resid_post"))],
        *([site] for site in scope.anatomy.sites),
    ):
        with torch.set_grad_enabled(grad), scope.trace(samples):
            found = {site: scope.live(site) for site in sites}
        for site, value in found.items():
            kept = _at_tokens(site, value, seen), _at_tokens(site, record[site], seen)
            assert torch.allclose(*kept, atol=1e-4), site


def _at_tokens(site, value, mask):
    """What stands at padding is nobody's."""
    if mask.ndim < 2:
        return value.detach()
    if site.endswith(("scores", "pattern")):
        value = value.transpose(1, 2)  # (batch, query, head, key)
    return value.detach()[mask.bool()]


def test_patterns_without_gradients_stay_as_they_were(scope):
    """They are given out as they are, without a copy."""
    clean = scope.record(IDS, "layers.0.attn.pattern")["layers.0.attn.pattern"]
    with torch.no_grad(), scope.trace(IDS):
        pattern = scope.layers[0].attn.pattern
        scope.layers[0].attn.pattern[:, 1] = 0
        edited = scope.logits
    expected = scope.record(
        IDS, "logits", edits={"layers.0.attn.pattern": lambda a: a * torch.tensor([1.0, 0, 1])[:, None, None]}
    )
    assert torch.allclose(pattern, clean, atol=1e-6) and torch.allclose(edited, expected["logits"], atol=1e-5)
    with torch.no_grad(), scope.trace(IDS):
        scope.layers[0].attn.pattern.data[:, 1] = 0
        edited = scope.logits
    assert torch.allclose(edited, expected["logits"], atol=1e-5)


@pytest.mark.parametrize("ends", ["well", "by stop", "by an error"])
def test_a_trace_keeps_no_tensor_alive(scope, ends):
    """Not even until the garbage collector comes: on a GPU that is memory."""
    import gc
    import weakref

    gc.disable()
    try:
        with contextlib.suppress(KeyError), scope.trace(IDS) as tracer:
            z, logits = scope.layers[0].attn.z, scope.logits
            held = [weakref.ref(z), weakref.ref(logits)]
            with logits.sum().backward():
                held.append(weakref.ref(z.grad))
            held.append(weakref.ref(tracer.result.logits))
            if ends == "by stop":
                tracer.stop()
            if ends == "by an error":
                raise KeyError
        del z, logits
        assert not any(ref() is not None for ref in held), tracer
    finally:
        gc.enable()


def test_a_late_write_points_at_the_users_line(scope):
    with pytest.warns(UserWarning, match="written after") as seen, scope.trace(IDS):
        z = scope.layers[0].attn.z
        scope.logits
        z[...] = 0
    assert seen[0].filename == __file__
