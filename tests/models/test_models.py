import json

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.models import packaged, train


def test_the_package_data_is_small_and_complete():
    data = [file for file in packaged.FOLDER.parents[1].rglob("*") if file.is_file() and "data" in file.parts]
    samples = [file for file in (packaged.FOLDER.parents[2] / "samples" / "data").iterdir()]
    assert sum(file.stat().st_size for file in data + samples) < 5_000_000
    assert all(packaged.checkpoint_file(0, step).exists() for step in packaged.CHECKPOINT_STEPS)
    assert all(packaged.checkpoint_file(seed, 3000).exists() for seed in packaged.SEEDS)
    card = (packaged.FOLDER / "README.md").read_text()
    assert "python -m tensorscope_nb.models.train" in card


def test_the_packaged_model_is_what_its_card_says():
    scope = ts.load("tiny")
    assert sum(p.numel() for p in scope.model.parameters()) == 211_200
    assert (scope.anatomy.n_layers, scope.anatomy.n_heads, scope.anatomy.d_model, scope.anatomy.context) == (2, 4, 96, 128)
    assert len(scope.tokenizer) == 512
    unseen = ts.datasets.shakespeare(scope, n=32)
    assert scope.perplexity(unseen).value < 40 < ts.load("tiny", checkpoint=200).perplexity(unseen).value


def test_checkpoints_are_in_order_distinct_and_carry_their_learning_rates():
    history = ts.checkpoints("tiny")
    assert history.steps == (0, 200, 600, 900, 1000, 1200, 1800, 3000) and len(set(history.fingerprints)) == 8
    assert history.learning_rates == tuple(train.learning_rate(step) for step in history.steps)
    assert torch.equal(history[2].model.transformer.wte.weight, ts.load("tiny", checkpoint=600).model.transformer.wte.weight)
    losses = [scope.losses(ts.datasets.repeats(scope, n=4)).mean().item() for scope in history]
    assert losses[2] > 4 and losses[-1] < 0.3


def test_training_samples_can_be_made_again_from_their_ids():
    ids, names, kinds = train.training_batch(17, seed=1)
    again, same, _ = train.training_batch(17, seed=1)
    assert torch.equal(ids, again) and names == same and names[3] == "1:17:3" and ids.shape == (32, 128)
    assert not torch.equal(ids, train.training_batch(18, seed=1)[0]) and not torch.equal(ids, train.training_batch(17, seed=0)[0])
    row = ids[kinds.index("repeat")][1:]
    assert any(torch.equal(row[period:], row[:-period]) for period in range(4, 49))
    shares = [sum(k == kind for step in range(40) for k in train.training_batch(step)[2]) / 1280 for kind in train.KINDS]
    assert all(abs(share - expected) < 0.04 for share, expected in zip(shares, train.KINDS.values()))


def test_training_learns_and_is_reproducible(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    monkeypatch.setattr(train, "checkpoint_file", lambda seed, step: tmp_path / f"{seed}-{step}.safetensors")
    state = torch.get_rng_state()
    first = train.train(0, n_steps=3, save_at=(0, 3))
    second = train.train(0, n_steps=3, save_at=())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["0-0.safetensors", "0-3.safetensors"]


def test_a_folder_written_by_save_pretrained(tmp_path):
    tiny = ts.load("tiny")
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    mine = ts.load(tmp_path / "mine")
    assert mine.name == "mine" and torch.equal(mine.losses(["To be, or not"]), tiny.losses(["To be, or not"]))


def test_a_folder_without_a_tokenizer_takes_token_ids(tmp_path):
    random_gpt2().save_pretrained(tmp_path / "bare")
    scope = ts.load(tmp_path / "bare")
    assert scope.losses(torch.arange(9)[None]).shape == (1,)
    with pytest.raises(TypeError, match="has no tokenizer"):
        scope.losses(["a text"])


def test_a_pickle_is_never_run(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "trap"
    random_gpt2().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(Exception, match=r"."):
        ts.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p: ts.load("./no/such/folder"), FileNotFoundError, "there is no folder './no/such/folder'"),
        (lambda p: ts.load(p), FileNotFoundError, "has no config.json"),
        (lambda p: ts.load("tiny", checkpoint=601), LookupError, "checkpoint is 601: seed 0 has checkpoints at steps 0, 200, 600"),
        (lambda p: ts.load("tiny", seed=1, checkpoint=600), LookupError, "seed 1 has checkpoints at steps 3000"),
        (lambda p: ts.load("tiny", seed=7), LookupError, "the packaged model has seeds 0, 1, 2"),
        (lambda p: ts.load("tiny", revision="x"), TypeError, "not revision="),
        (lambda p: ts.load(p, checkpoint=3), ValueError, "they go with ts.load\\('tiny'\\) and ts.load"),
        (lambda p: ts.checkpoints("gpt2"), LookupError, "there is no packaged history 'gpt2'"),
        (lambda p: ts.checkpoints("tiny")[8], IndexError, "there is no checkpoint 8: tiny has 8"),
    ],
)  # fmt: skip
def test_bad_names_are_one_clear_line(tmp_path, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_stored_history_matches_the_training_script():
    stored = json.loads((packaged.FOLDER / "history.json").read_text())["learning_rates"]
    assert stored == {str(step): train.learning_rate(step) for step in packaged.CHECKPOINT_STEPS}


def test_training_samples_are_rows_of_the_training():
    samples = train.training_samples(5, seed=2, kinds=("code", "repeat"))
    assert len(samples) == 5 and set(samples.tasks) <= {"code", "repeat"}
    for i, name in enumerate(samples.ids):
        seed, step, row = map(int, name.split(":"))
        ids, _, kinds = train.training_batch(step, seed)
        assert (seed, step) == (2, 600 * i) and samples.tasks[i] == kinds[row]
        assert torch.equal(samples.input_ids[i], ids[row])
    scope = ts.load("tiny", seed=2)
    assert scope.samples(samples) is samples and samples.token_strings(0)[0] == scope.tokenizer.bos_token


@pytest.mark.parametrize("options", [{"seed": 3}, {"n": 0}, {"n": 3001}, {"kinds": []}, {"kinds": "prose"}])
def test_training_samples_that_there_are_not(options):
    with pytest.raises((ValueError, LookupError), match=f"{next(iter(options))} is"):
        train.training_samples(**options)
