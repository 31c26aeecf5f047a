"""Head weights of every family against the model's own arithmetic: nothing here slices a weight."""

import pytest
import torch
import transformers
from model_zoo import CAUSAL, OTHERS, build
from transformers import BertConfig, BertModel

import tensorscope_nb as ts
from tensorscope_nb.scope.head_weights import head_weights, norms_through, reading_norm
from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.rotary import rotations

ALL = [*CAUSAL, *OTHERS]
ROTARY = [name for name in CAUSAL if name != "gpt2"]
NORMED = {"qwen3": "head", "gemma3": "head", "olmo2": "all"}  # their queries and keys are normalised, over what


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def recorded(scope, layer, *names):
    """A stream of different first tokens; what is asked for as (token, …) at positions that are not rotated."""
    if scope.anatomy.n_vocab:
        generator = torch.Generator().manual_seed(0)
        samples = ts.Samples.tokens(torch.randint(1, 50, (12, 3), generator=generator))
    else:
        samples = ts.Samples.tensors({"pixel_values": torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    rotates = scope.anatomy.family in ("llama", "gpt_neox")
    values = scope.record(samples, [f"layers.{n}" for n in names])
    taken = [values[f"layers.{n}"] for n in names]
    return [(v[:, 0] if rotates else v.flatten(0, 1)).double() for v in taken]


def read_by(scope, layer):
    """The stream at unit scale that the weights of a layer read, with the sites asked for."""
    if scope.anatomy.family == "bert" and layer:
        mid, mlp, q, k, v = recorded(scope, layer, f"{layer - 1}.resid_mid", f"{layer - 1}.mlp.out", *three(layer))
        stream = mid + mlp
    else:
        stream, q, k, v = recorded(scope, layer, f"{layer}.resid_pre", *three(layer))
    norm = reading_norm(scope.model, scope.anatomy, layer)
    return stream / norm.scale(stream.float()), {"Q": q, "K": k, "V": v}


def three(layer):
    return [f"{layer}.attn.{name}" for name in "qkv"]


def spread(values):
    """How far what should be constant (a bias) varies over tokens."""
    return (values - values.mean(0)).abs().max()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_stream_times_the_weights_is_q_k_and_v_but_for_the_bias(name, layer):
    scope = ts.Scope(build(name))
    stream, sites = read_by(scope, layer)
    weights = head_weights(scope.model, scope.anatomy, layer)
    group = scope.anatomy.n_heads // scope.anatomy.n_kv_heads
    for block, there in sites.items():
        made = torch.einsum("td,hde->the", stream, getattr(weights, block))
        there = there if block == "Q" else there.repeat_interleave(group, 1)
        assert there.abs().max() > 0.1  # there is something to be wrong about
        if name in NORMED and block != "V":  # their scale depends on the token
            axes = -1 if NORMED[name] == "head" else (-2, -1)
            made, there = (x / (x**2).sum(axes, keepdim=True).sqrt() for x in (made, there))
            assert (made - there).abs().max() < 1e-4
        else:
            assert spread(made - there) < 1e-4 * max(1, there.abs().max())


@pytest.mark.parametrize("name", ALL)
def test_what_heads_write_adds_up_to_what_attention_adds_to_the_stream(name):
    """Behind the norm that follows, at that norm's own scale, where there is one."""
    scope = ts.Scope(build(name))
    z, out = recorded(scope, 1, "1.attn.z", "1.attn.out")
    after = scope.anatomy.table.after_attention
    norm = Norm.of(scope.model, f"{scope.anatomy.names[1]}.{after}" if after else "", scope.anatomy.d_model)
    made = torch.einsum("the,hed->td", z, head_weights(scope.model, scope.anatomy, 1).O)
    assert spread(made - norm.folded(out)) < 1e-4 * out.abs().max()


def test_only_a_post_norm_model_normalises_its_stream_between_heads():
    for name in ALL:
        anatomy = ts.detect(model := build(name))
        assert len(norms_through(model, anatomy, 1)) == (2 if anatomy.family == "bert" else 0)
        assert norms_through(model, anatomy, 0) == []


@pytest.mark.parametrize("name", ROTARY)
def test_a_rotation_is_what_the_model_does_to_a_query_so_far_away(name):
    """One token alone, at position 0 and at a later one: the same query, turned."""
    scope = ts.Scope(build(name))
    for offset in (1, 7):
        turned = rotations(scope.model, scope.anatomy, offset)
        for layer in (0, 1):
            site = f"layers.{layer}.attn.q"
            here, there = (
                scope.record(ts.Samples.tokens(torch.tensor([[5]]), more={"position_ids": torch.tensor([[at]])}), site)[site]
                for at in (3, 3 + offset)
            )
            assert (here - there).abs().max() > 0.01
            unturned = here.double() @ rotations(scope.model, scope.anatomy, 3)[layer].T
            assert torch.allclose(unturned @ rotations(scope.model, scope.anatomy, 3 + offset)[layer], there.double(), atol=1e-4)
            assert torch.allclose(here.double() @ turned[layer], there.double(), atol=1e-4)


@pytest.mark.parametrize("kind", ["StableLm", "GPTNeoX"])
def test_a_partial_rotation_leaves_the_other_dimensions_alone(kind):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scope = ts.Scope(getattr(transformers, f"{kind}ForCausalLM")(config).eval())
    n = int(8 * 0.25)  # the share that both rotate, unless told otherwise
    for layer, turned in enumerate(rotations(scope.model, scope.anatomy, 5)):
        assert torch.equal(turned[n:, n:], torch.eye(8 - n).double()) and not turned[:n, n:].any() and not turned[n:, :n].any()
        site = f"layers.{layer}.attn.q"
        at = lambda t, site=site: scope.record(
            ts.Samples.tokens(torch.tensor([[5]]), more={"position_ids": torch.tensor([[t]])}), site
        )
        assert torch.allclose(at(0)[site].double() @ turned, at(5)[site].double(), atol=1e-5)


def test_the_score_of_a_pair_of_positions_is_that_of_their_offset():
    scope = ts.Scope(build("gemma3"))  # whose layers rotate by different angles
    q, k = (scope.record(torch.arange(1, 9)[None], f"layers.1.attn.{n}")[f"layers.1.attn.{n}"][0].double() for n in "qk")
    back = [rotations(scope.model, scope.anatomy, t)[1].T if t else torch.eye(8).double() for t in range(8)]
    q, k = (torch.stack([x[t] @ back[t] for t in range(8)]) for x in (q, k))  # as if all stood at position 0
    site = "layers.1.attn.scores"
    scores = scope.record(torch.arange(1, 9)[None], site)[site][0].double()
    for t, s in ((3, 3), (4, 1), (7, 2)):
        turned = rotations(scope.model, scope.anatomy, t - s)[1]
        made = torch.einsum("he,ef,hf->h", q[t], turned, k[s].repeat_interleave(2, 0)) * 8**-0.5
        assert torch.allclose(made, scores[:, t, s], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "offset", "error", "says"),
    [
        ("gpt2", 1, ts.UnsupportedModel, "has no rotary embedding that can be read: leave offset out"),
        ("vit", 1, ts.UnsupportedModel, "has no rotary embedding"),
        ("llama", -1, ValueError, "offset is -1: give the number of positions from key to query, 0 or more"),
        ("llama", 1.5, ValueError, "offset is 1.5"),
        ("llama", 32, ValueError, "offset is 32: the context is 32, ask for at most 31"),
    ],
)
def test_bad_offsets_are_one_clear_line(name, offset, error, says):
    model = build(name)
    with pytest.raises(error, match=says):
        rotations(model, ts.detect(model), offset)


def test_no_offset_is_no_rotation():
    model = build("llama")
    for turned in rotations(model, ts.detect(model), 0):
        assert torch.allclose(turned, torch.eye(6).double(), atol=1e-6)


def test_a_headless_model_of_more_layers_is_read_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)
        model = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
    assert head_weights(model, ts.detect(model), 2).Q.shape == (3, 24, 8)
