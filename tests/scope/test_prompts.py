"""Several prompts in one trace, and the steps of a generation."""

import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts

SHORT, LONG = [[3, 1, 4]], [[1, 5, 9, 2, 6, 5]]
BOTH = [*SHORT, *LONG]
FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "mistral"]


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def alone(scope, ids, site):
    return scope.record(torch.tensor(ids), site)[site]


def test_a_batch_of_unequal_prompts_equals_each_alone(scope):
    with scope.trace(BOTH):
        z = scope.layers[1].attn.z
        logits = scope.logits
    for row, ids in enumerate((SHORT, LONG)):
        n = len(ids[0])
        assert torch.allclose(z[row : row + 1, :n], alone(scope, ids, "layers.1.attn.z"), atol=1e-5)
        assert torch.allclose(logits[row : row + 1, :n], alone(scope, ids, "logits"), atol=1e-5)


def test_invokes_read_and_write_their_own_prompt(scope):
    with scope.trace() as tracer:
        with tracer.invoke(SHORT):
            scope.layers[0].attn.z[:, :, 1] = 0
            edited = scope.logits.save()
        with tracer.invoke(LONG):
            pattern = scope.layers[0].attn.pattern.save()
            clean = scope.logits.save()

    def zero(z):
        z[:, :, 1] = 0
        return z

    expected = scope.record(torch.tensor(SHORT), "logits", edits={"layers.0.attn.z": zero})["logits"]
    assert edited.shape[1] == 3 and torch.allclose(edited, expected, atol=1e-5)
    assert pattern.shape == (1, 3, 6, 6) and torch.allclose(clean, alone(scope, LONG, "logits"), atol=1e-5)


def test_a_value_of_one_prompt_is_put_into_the_next(scope):
    with scope.trace() as tracer:
        with tracer.invoke(SHORT):
            stream = scope.layers[0].resid_post[:, -1]
        with tracer.invoke(LONG):
            scope.layers[0].resid_post[:, -1] = stream
            patched = scope.logits
    value = alone(scope, SHORT, "layers.0.resid_post")[:, -1]

    def patch(x):
        x[:, -1] = value
        return x

    expected = scope.record(torch.tensor(LONG), "logits", edits={"layers.0.resid_post": patch})["logits"]
    assert torch.allclose(patched, expected, atol=1e-5)


def test_a_prompt_that_stops_leaves_the_next_to_run(scope):
    with scope.trace() as tracer:
        with tracer.invoke(SHORT):
            scope.embed
            tracer.stop()
        with tracer.invoke(LONG):
            logits = scope.logits
    assert torch.allclose(logits, alone(scope, LONG, "logits"), atol=1e-5)


def test_prompts_in_the_wrong_place_are_one_clear_line(scope):
    with pytest.raises(ValueError, match="no prompt is open"), scope.trace():
        scope.logits
    with pytest.raises(ValueError, match="this trace has its samples already"), scope.trace(LONG) as tracer:
        tracer.invoke(SHORT)
    with (
        pytest.raises(ValueError, match="a prompt of this trace is open"),
        scope.trace() as tracer,
        tracer.invoke(SHORT),
        tracer.invoke(LONG),
    ):
        pass
    with pytest.raises(ValueError, match="a prompt belongs into its trace"), tracer.invoke(SHORT):
        pass


def zeroed_by_hand(scope, ids, n, layer, channels):
    """Greedy decoding without a cache, with a plain hook that zeroes channels of what enters the output projection."""
    projection = scope.model.get_submodule(scope.anatomy.sites[f"layers.{layer}.attn.z"].path)

    def zero(module, args):
        changed = args[0].clone()
        changed[:, :, channels] = 0
        return (changed, *args[1:])

    handle = projection.register_forward_pre_hook(zero)
    ids, rows = torch.tensor(ids), []
    try:
        for _ in range(n):
            with torch.no_grad():
                rows.append(scope.model(ids, use_cache=False).logits[:, -1])
            ids = torch.cat([ids, rows[-1].argmax(-1, keepdim=True)], 1)
    finally:
        handle.remove()
    return ids, torch.stack(rows, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_generation_equals_one_hooked_by_hand(family):
    scope = ts.Scope(build(family))
    scope.model.generation_config.eos_token_id = None
    config = scope.model.config.use_cache, scope.model.config._attn_implementation
    width = scope.anatomy.d_head
    expected, expected_logits = zeroed_by_hand(scope, LONG, 5, 1, slice(width, 2 * width))
    logits, patterns = [], []
    with scope.trace(LONG, max_new_tokens=5) as tracer:
        for step in tracer.iter[:]:
            pattern = scope.layers[1].attn.pattern
            scope.layers[1].attn.z[:, :, 1] = 0
            logits.append(scope.logits[:, -1])
            patterns.append(pattern)
            steps = step + 1
        ids = tracer.result
    assert steps == 5 and ids.tolist() == expected.tolist()
    assert torch.allclose(torch.stack(logits, 1), expected_logits, atol=1e-4)
    assert [p.shape[-2] for p in patterns] == [6, 1, 1, 1, 1] and all(p.sum(-1).allclose(torch.ones(())) for p in patterns)
    assert config == (scope.model.config.use_cache, scope.model.config._attn_implementation)
    assert ids.tolist() != scope.model.generate(torch.tensor(LONG), max_new_tokens=5, do_sample=False).tolist()


def test_an_edit_of_the_logits_steers(scope):
    with scope.trace(SHORT, max_new_tokens=4) as tracer:
        for step in tracer.iter[:]:
            if step % 2:
                scope.logits[:, -1, 7] = 1e4
        ids = tracer.result
    assert ids[0, [4, 6]].tolist() == [7, 7]


def test_chosen_steps(scope):
    with scope.trace(SHORT, max_new_tokens=5) as tracer:
        every = [scope.final_norm for step in tracer.all()]
    for key in (slice(1, 4), slice(0, 5, 2), [0, 3], 2):
        with scope.trace(SHORT, max_new_tokens=5) as tracer:
            some = {step: scope.final_norm for step in tracer.iter[key]}
        wanted = [key] if isinstance(key, int) else key if isinstance(key, list) else list(range(5))[key]
        assert list(some) == wanted and all(torch.equal(some[i], every[i]) for i in wanted)


def test_unequal_prompts_generate_as_each_does_alone(scope):
    scope.model.generation_config.eos_token_id = None
    with scope.trace(BOTH, max_new_tokens=4) as tracer:
        streams = [scope.layers[1].resid_post[:, -1] for step in tracer.iter[:]]
        ids = tracer.result
    for row, prompt in enumerate((SHORT, LONG)):
        with scope.trace(prompt, max_new_tokens=4) as tracer:
            own = [scope.layers[1].resid_post[:, -1] for step in tracer.iter[:]]
            assert ids[row, -4:].tolist() == tracer.result[0, -4:].tolist()
        assert all(torch.allclose(a[row], b[0], atol=1e-5) for a, b in zip(streams, own))


def test_steps_are_in_order_and_end_with_the_generation(scope):
    with (
        pytest.raises(ValueError, match="step 0 was asked for when step 2 had begun"),
        scope.trace(SHORT, max_new_tokens=4) as tracer,
    ):
        for _step in tracer.iter[[2, 0]]:
            scope.embed
    with (
        pytest.raises(ValueError, match=r"embed was asked for too late.*in step 1.*tracer\.iter"),
        scope.trace(SHORT, max_new_tokens=4) as tracer,
    ):
        for _step in tracer.iter[1]:
            scope.logits
            scope.embed
    with (
        pytest.warns(UserWarning, match="step 2 was asked for, and the model made 2: the loop ends before it"),
        scope.trace(SHORT, max_new_tokens=2) as tracer,
    ):
        steps = list(tracer.iter[:7])
    assert steps == [0, 1]
    with pytest.raises(ValueError, match="count them from 0"), scope.trace(SHORT, max_new_tokens=2) as tracer:
        tracer.iter[-1:]


def test_a_generation_stops_early(scope):
    passes = []
    scope.model.register_forward_pre_hook(lambda module, args: passes.append(1))
    with scope.trace(SHORT, max_new_tokens=5) as tracer:
        for step in tracer.iter[:]:
            z = scope.layers[0].attn.z
            if step == 1:
                tracer.stop()
    assert len(passes) == 2 and z.shape[1] == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(max_new_tokens=0), "max_new_tokens is 0: generate at least 1"),
        (dict(max_new_tokens=30), "take 32 positions, and the model's context is 24"),
        (dict(do_sample=True), "do_sample is an option of a generation: give max_new_tokens="),
    ],
)
def test_a_generation_that_cannot_be_is_one_clear_line(scope, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        scope.trace(SHORT, **options)


def test_an_encoder_does_not_generate():
    with pytest.raises(ts.UnsupportedModel, match="needs a causal language model"):
        ts.Scope(build("bert")).trace(SHORT, max_new_tokens=2)


def test_a_generation_carries_no_gradient_and_says_so(scope):
    with pytest.raises(ValueError, match=r"carries no gradient.*is a generation"), scope.trace(SHORT, max_new_tokens=2):
        scope.logits.sum().backward()
