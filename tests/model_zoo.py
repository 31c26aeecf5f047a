"""Tiny random models of every family, with weights large enough that a wrong slice or sign shows."""

import torch
import transformers as tf

TOKENS = dict(vocab_size=50, bos_token_id=0, eos_token_id=0, pad_token_id=0)
LLAMA = dict(
    **TOKENS, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32
)  # fmt: skip


def _build(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.3)
            else:
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
    model.tie_weights() if hasattr(model, "tie_weights") else None
    return model.eval()


CAUSAL = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**TOKENS, n_positions=32, n_embd=24, n_layer=2, n_head=3)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)),
    "llama tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA, tie_word_embeddings=True, attention_bias=True)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**LLAMA, head_dim=8, sliding_window=5)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**LLAMA)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**LLAMA, head_dim=8)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(**LLAMA, head_dim=8, sliding_window=5, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, query_pre_attn_scalar=8)
    ),
    "gemma3": lambda: tf.Gemma3ForCausalLM(
        tf.Gemma3TextConfig(**LLAMA, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"])
    ),
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**LLAMA)),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**LLAMA)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(
        tf.GPTNeoXConfig(**TOKENS, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=32)
    ),
    "gpt_neox sequential": lambda: tf.GPTNeoXForCausalLM(
        tf.GPTNeoXConfig(
            **TOKENS, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=32, use_parallel_residual=False
        )
    ),
}  # fmt: skip
BERT = dict(
    vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=32, pad_token_id=0
)  # fmt: skip
OTHERS = {
    "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**BERT)),
    "bert headless": lambda: tf.BertModel(tf.BertConfig(**BERT), add_pooling_layer=False),
    "bert classifier": lambda: tf.BertForSequenceClassification(tf.BertConfig(**BERT, num_labels=4)),
    "vit": lambda: tf.ViTForImageClassification(
        tf.ViTConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=8, patch_size=4, num_labels=5)
    ),
}  # fmt: skip
IGNORE_THE_INTERFACE = {
    "falcon": lambda: tf.FalconForCausalLM(tf.FalconConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, bos_token_id=0, eos_token_id=0)),
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=50, hidden_size=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)),
    "gptj": lambda: tf.GPTJForCausalLM(tf.GPTJConfig(vocab_size=50, n_positions=32, n_embd=24, n_layer=2, n_head=3, rotary_dim=4, bos_token_id=0, eos_token_id=0)),
}  # fmt: skip


def cnn():
    layers = [
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(96, 5),
    ]  # fmt: skip
    return torch.nn.Sequential(*layers)


def mlp():
    return torch.nn.Sequential(
        torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )


def build(name):
    """The model of that name, the same each time."""
    return _build((CAUSAL | OTHERS | IGNORE_THE_INTERFACE | {"cnn": cnn, "mlp": mlp})[name])
