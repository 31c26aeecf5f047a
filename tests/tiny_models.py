"""Small models for tests: random ones with enlarged weights, and one whose heads do exactly what we say."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

BOS = 0


def random_gpt2(seed=0, **changes):
    """Two layers, three heads, with weights large enough that nothing is near uniform."""
    options = dict(
        vocab_size=50, n_positions=24, n_embd=24, n_layer=2, n_head=3, initializer_range=0.3, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config(**(options | changes)))
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms that are not at their initial 0 and 1
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


class Logits(torch.nn.Module):
    """A language model as a classifier of tokens, with the classes on the second axis."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids, use_cache=False).logits[:, :-1].transpose(1, 2)


def bigram_gpt2(table, context=16):
    """A GPT-2 of one layer that is a table (n, n) of p(next | token), whatever stands before that."""
    n = len(table)
    config = GPT2Config(vocab_size=n, n_positions=context, n_embd=2 * n, n_layer=1, n_head=1, n_inner=4, tie_word_embeddings=False,
                        bos_token_id=0, eos_token_id=0, layer_norm_epsilon=1e-12)  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    model.transformer.wte.weight.data[:, :n], model.transformer.wte.weight.data[:, n:] = torch.eye(n), -torch.eye(n)
    log_p = torch.as_tensor(table, dtype=torch.float64).log()
    model.lm_head.weight.data[:, :n] = log_p.T / n**0.5  # of ±1 in one place the norm makes ±√n
    return model


def attention_only(n_tokens=20, n_positions=24, sharpness=30.0):
    """A two-layer attention-only GPT-2 made by hand: head 0.0 attends to the previous token, head 1.0 is an induction head.

    The residual stream holds three one-hot parts: token, position, and (written by head 0.0) the previous token. Head 1.0
    matches its token with each key's previous token and adds the token found there to its own token part, which the tied
    unembedding reads. Heads 0.1 and 1.1 have zero weights: their attention is uniform.
    """
    d = 2 * n_tokens + n_positions
    heads, d_head = 2, d // 2
    assert d % 2 == 0 and d_head >= max(n_tokens, n_positions)
    config = GPT2Config(
        vocab_size=n_tokens, n_positions=n_positions, n_embd=d, n_layer=2, n_head=heads, n_inner=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=BOS, eos_token_id=BOS, layer_norm_epsilon=1e-12,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    token, position, previous = slice(0, n_tokens), slice(n_tokens, n_tokens + n_positions), slice(n_tokens + n_positions, d)
    body = model.transformer
    body.wte.weight.data[:, token] = torch.eye(n_tokens)
    body.wpe.weight.data[:, position] = torch.eye(n_positions)

    def set_head(layer, n, q, k, v_in, out, strength):
        """Head 0 of a layer: q and k are (d, n) maps that read the normalised stream, v reads v_in, out is where it writes."""
        attn = body.h[layer].attn
        weight, bias = attn.c_attn.weight.data, attn.c_attn.bias.data
        weight[:, :n], weight[:, d : d + n] = q, k
        weight[v_in, 2 * d : 2 * d + n_tokens] = torch.eye(n_tokens)
        attn.c_proj.weight.data[:n_tokens, out] = strength * torch.eye(n_tokens)
        # the norm takes the mean (n_hot / d) off every coordinate: the bias puts it back, so that what is read is one-hot
        n_hot = 2 + layer
        bias += n_hot / d / _std(n_hot, d) * weight.sum(0)

    shift = torch.zeros(d, n_positions)
    for p in range(1, n_positions):
        shift[n_tokens + p, p - 1] = sharpness
    shift[n_tokens, 0] = sharpness  # the first position has nothing before it, and looks at itself
    here = torch.zeros(d, n_positions)
    here[position] = torch.eye(n_positions)
    set_head(0, n_positions, shift, here, token, previous, _std(2, d))
    own = torch.zeros(d, n_tokens)
    own[token] = sharpness * torch.eye(n_tokens)
    own[BOS] = 0  # the first token looks everywhere alike
    before = torch.zeros(d, n_tokens)
    before[previous] = torch.eye(n_tokens)
    set_head(1, n_tokens, own, before, token, token, 40.0)
    return model


def _std(n_hot, d):
    """The standard deviation of a stream with ``n_hot`` ones: by it the norm divides, and the head's output undoes that."""
    return ((n_hot / d) * (1 - n_hot / d)) ** 0.5
