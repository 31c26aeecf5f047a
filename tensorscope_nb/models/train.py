"""Trains the packaged model: ``python -m tensorscope_nb.models.train --seed 0``.

A two-layer GPT-2 on 40 % repeated random tokens, 30 % code and 30 % Shakespeare. It forms induction heads in a
visible step ("bump") of the loss on the repeated tokens, near step 900. Every batch is a pure function of
``(seed, step)``, so that any training sample can be made again from its id.
"""

import argparse
import functools
import json
import math
import operator
from collections.abc import Collection
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tensorscope_nb.models.packaged import CHECKPOINT_STEPS, FOLDER, checkpoint_file, packaged_tokenizer
from tensorscope_nb.samples import Samples
from tensorscope_nb.samples.corpora import corpus
from tensorscope_nb.samples.tokenize import token_strings, vocabulary_of

N_STEPS, BATCH, CONTEXT = 3000, 32, 128
PEAK_LEARNING_RATE, WARM_UP = 3e-3, 100
PERIODS = (4, 48)
KINDS = {"repeat": 0.4, "code": 0.3, "shakespeare": 0.3}
RANDOM_SEEDS = (
    1,
    0,
    2,
)  # of the packaged seeds 0, 1, 2: the run with the clearest heads is the default, the others its replicates


def learning_rate(step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak; the rate of update ``step`` (from 0)."""
    warm = min(1.0, (step + 1) / WARM_UP)
    progress = max(0.0, (step - WARM_UP) / (N_STEPS - WARM_UP))
    return PEAK_LEARNING_RATE * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def training_batch(step: int, seed: int = 0) -> tuple[Tensor, list[str], list[str]]:
    """Token ids (32, 128) of update ``step``, the id of every row (``"seed:step:row"``), and its kind."""
    generator = torch.Generator().manual_seed(RANDOM_SEEDS[seed] * 1_000_003 + step)
    draws = torch.rand(BATCH, generator=generator)
    kinds = ["repeat" if u < 0.4 else "code" if u < 0.7 else "shakespeare" for u in draws.tolist()]
    rows = [_repeats(generator) if kind == "repeat" else _window(kind, generator) for kind in kinds]
    bos = torch.full((BATCH, 1), packaged_tokenizer().bos_token_id)
    return torch.cat([bos, torch.stack(rows)], 1), [f"{seed}:{step}:{i}" for i in range(BATCH)], kinds


def training_samples(n: int = 256, *, seed: int = 0, kinds: Collection[str] = tuple(KINDS)) -> Samples:
    """Sequences that the packaged model was trained on: one of each of n updates that lie evenly over the training.

    Ids are ``"seed:update:row"``, tasks what they are: ``repeat``, ``code`` or ``shakespeare``; ``kinds`` asks for some of them.

    >>> from tensorscope_nb.models.train import training_samples
    >>> training_samples(4, kinds=["code"])
    Samples(4 code; 128 tokens each)
    """
    if seed not in range(len(RANDOM_SEEDS)):
        raise LookupError(f"seed is {seed}: the packaged model has seeds {', '.join(map(str, range(len(RANDOM_SEEDS))))}")
    if not 1 <= n <= N_STEPS:
        raise ValueError(f"n is {n}: one sequence is taken of an update, and there were {N_STEPS}: ask for 1 to {N_STEPS}")
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    if not wanted or set(wanted) - set(KINDS):
        raise ValueError(f"kinds is {kinds!r}: choose among {', '.join(KINDS)}")
    tokenizer = packaged_tokenizer()
    found: dict[str, list[tuple[str, Tensor]]] = {kind: [] for kind in wanted}
    order: list[str] = []
    for k in range(n):
        ids, names, drawn = training_batch(k * N_STEPS // n, seed)
        rows = [i for i in [*range(k % BATCH, BATCH), *range(k % BATCH)] if drawn[i] in wanted]
        if not rows:
            raise ValueError(f"update {k * N_STEPS // n} had no {' or '.join(wanted)}: ask for another n")
        found[drawn[rows[0]]].append((names[rows[0]], ids[rows[0]]))
        order.append(names[rows[0]])
    made = [
        Samples.tokens(
            torch.stack([ids for _, ids in rows]),
            task=kind,
            ids=[name for name, _ in rows],
            texts=[tokenizer.decode(ids, skip_special_tokens=True) for _, ids in rows],
            pieces=[tuple(token_strings(tokenizer, ids.tolist())) for _, ids in rows],
            vocabulary=vocabulary_of(tokenizer),
        )
        for kind, rows in found.items()
        if rows
    ]
    return functools.reduce(operator.add, made)[order]


def _repeats(generator: torch.Generator) -> Tensor:
    tokenizer = packaged_tokenizer()
    period = int(torch.randint(PERIODS[0], PERIODS[1] + 1, (1,), generator=generator))
    block = torch.randint(tokenizer.bos_token_id + 1, len(tokenizer), (period,), generator=generator)
    return block.repeat(math.ceil((CONTEXT - 1) / period))[: CONTEXT - 1]


def _window(name: str, generator: torch.Generator) -> Tensor:
    ids = _encoded(name)
    start = int(torch.randint(len(ids) - CONTEXT + 1, (1,), generator=generator))
    return ids[start : start + CONTEXT - 1]


@cache
def _encoded(name: str) -> Tensor:
    return torch.tensor(packaged_tokenizer().encode(corpus(name, "train"), add_special_tokens=False, verbose=False))


def train_tokenizer() -> None:
    """Byte-level BPE of 512 tokens over both training corpora, with a token that begins every sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bos = "<|endoftext|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=[bos], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([corpus("shakespeare", "train"), corpus("code", "train")], trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token=bos, pad_token=bos, model_max_length=CONTEXT)
    fast.save_pretrained(FOLDER)


def new_model(seed: int) -> torch.nn.Module:
    """The untrained model of a seed; the caller's random state is left alone."""
    from transformers import GPT2Config, GPT2LMHeadModel

    bos = packaged_tokenizer().bos_token_id
    config = GPT2Config(
        vocab_size=512, n_positions=CONTEXT, n_embd=96, n_layer=2, n_head=4, n_inner=192, initializer_range=0.08,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=bos, eos_token_id=bos, pad_token_id=bos,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEEDS[seed])
        return GPT2LMHeadModel(config)


def save_checkpoint(model: torch.nn.Module, seed: int, step: int) -> None:
    """Half-precision safetensors; the tied head and the attention buffers are not parameters and stay out."""
    from safetensors.torch import save_file

    file = checkpoint_file(seed, step)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().half().contiguous() for name, p in model.named_parameters()}, file)


def train(seed: int, n_steps: int = N_STEPS, save_at: tuple[int, ...] = CHECKPOINT_STEPS) -> torch.nn.Module:
    """Trains one seed, saving half-precision checkpoints at ``save_at``, and prints the loss of each kind of text."""
    torch.set_num_threads(1)
    model = new_model(seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for step in range(n_steps + 1):
        if step in save_at:
            save_checkpoint(model, seed, step)
        if step == n_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        ids, _, kinds = training_batch(step, seed)
        logits = model(input_ids=ids, use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
            BATCH, -1
        )
        optimizer.zero_grad()
        nll.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for row, kind in zip(nll.detach(), kinds, strict=True):
            losses[kind].append(float(row[64:].mean()))  # the second half: on "repeat", tokens seen before
        if (step + 1) % 100 == 0:
            means = "  ".join(f"{kind} {sum(v) / len(v):.3f}" for kind, v in losses.items())
            print(f"seed {seed}  step {step + 1:5d}  loss on the second half: {means}", flush=True)
            losses = {kind: [] for kind in KINDS}
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--final-only", action="store_true", help="save the last checkpoint alone, as for the replicates")
    args = parser.parse_args()
    if not (FOLDER / "tokenizer.json").exists():
        train_tokenizer()
    model = train(args.seed, save_at=(N_STEPS,) if args.final_only else CHECKPOINT_STEPS)
    model.config.save_pretrained(FOLDER)  # type: ignore[union-attr, operator]
    steps = {str(step): learning_rate(step) for step in CHECKPOINT_STEPS}
    Path(FOLDER / "history.json").write_text(json.dumps({"learning_rates": steps}, indent=2) + "\n")


if __name__ == "__main__":
    main()
