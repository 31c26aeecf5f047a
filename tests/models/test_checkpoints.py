"""``ts.checkpoints`` of one's own files: what is read, what each thing that is wrong says, and that no file runs code."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from tiny_models import random_gpt2
from torch import nn
from trap import Trap

import tensorscope_nb as ts
from tensorscope_nb.models.digits import new_digits_model, train_digits
from tensorscope_nb.models.told import step_in_name
from tensorscope_nb.recipes.recipe import fingerprint

IDS = torch.arange(3, 12)[None]


def mlp(seed=0):
    """Ten weights, made without the global generator."""
    linear = lambda n_in, n_out: nn.utils.skip_init(nn.Linear, n_in, n_out)
    model = nn.Sequential(linear(3, 2), nn.Tanh(), linear(2, 2))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def numbers(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def saved(folder, steps=(0, 10, 40), name="step{:06d}.pt", model=mlp, **notes):
    """A folder of state dicts, each with its own weights."""
    folder.mkdir(exist_ok=True)
    for step in steps:
        content = {"model": model(step).state_dict(), **notes} if notes else model(step).state_dict()
        torch.save(content, folder / name.format(step))
    return folder


# What is read ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_state_dicts_is_a_history_in_the_order_of_its_steps(tmp_path):
    folder = saved(tmp_path / "run", steps=(1000, 9, 40), name="model_step_{}.pt")
    model = mlp(77)
    before = numbers(model)
    state = torch.get_rng_state()
    history = ts.checkpoints(folder, model)
    assert history.steps == (9, 40, 1000) and history.learning_rates == (None,) * 3 and history.name == "run"
    assert [file.name for file in history.files] == ["model_step_9.pt", "model_step_40.pt", "model_step_1000.pt"]
    for step, scope in zip(history.steps, history):
        assert scope.name == f"run@{step}" and torch.equal(numbers(scope.model), numbers(mlp(step)))
    assert torch.equal(numbers(model), before) and torch.equal(torch.get_rng_state(), state)
    assert repr(history) == "Checkpoints(run: steps 9, 40, 1000)"


def test_each_checkpoint_is_a_model_of_its_own(tmp_path):
    model = mlp(77)
    history = ts.checkpoints(saved(tmp_path / "run"), model)
    first, again = history[0], history[0]
    with torch.no_grad():
        first.model[0].weight.zero_()
        model[0].weight.zero_()
    assert first.model is not again.model and torch.equal(numbers(again.model), numbers(mlp(0)))
    assert torch.equal(numbers(history[-1].model), numbers(mlp(40))) and torch.equal(numbers(history[0].model), numbers(mlp(0)))


def test_a_part_of_a_history_is_a_history(tmp_path):
    history = ts.checkpoints(saved(tmp_path / "run"), mlp(), learning_rates=[0.3, 0.2, 0.1])
    part = history[1:]
    assert (part.steps, part.learning_rates, part.fingerprints) == ((10, 40), (0.2, 0.1), history.fingerprints[1:])
    assert torch.equal(numbers(part[0].model), numbers(mlp(10))) and len(history) == 3
    with pytest.raises(ValueError, match="selects none of 3 checkpoints"):
        history[3:]
    with pytest.raises(ValueError, match="a history goes forward"):
        history[::-1]


@pytest.mark.parametrize("under", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_every_place_where_a_script_puts_weights(tmp_path, suffix, under):
    if suffix == ".safetensors" and under:
        pytest.skip("safetensors hold tensors only")
    for step in (1, 2):
        weights = mlp(step).state_dict()
        if suffix == ".safetensors":
            save_file(weights, tmp_path / f"step{step}{suffix}")
        else:
            torch.save({under: weights, "epoch": 3} if under else weights, tmp_path / f"step{step}{suffix}")
    history = ts.checkpoints(tmp_path, mlp())
    assert history.steps == (1, 2) and torch.equal(numbers(history[1].model), numbers(mlp(2)))


def test_the_older_form_of_torch_files(tmp_path):
    for step in (1, 2):
        torch.save(mlp(step).state_dict(), tmp_path / f"step{step}.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(numbers(ts.checkpoints(tmp_path, mlp())[0].model), numbers(mlp(1)))


def test_fingerprints_are_of_the_weights_and_those_that_results_carry(tmp_path):
    torch.save({"state_dict": mlp(1).state_dict(), "step": 1}, tmp_path / "a.pt")
    save_file(mlp(1).state_dict(), tmp_path / "b.safetensors", metadata={"step": "1", "note": "another file"})
    save_file({f"module.{k}": v for k, v in mlp(1).state_dict().items()}, tmp_path / "step1.safetensors")
    save_file(mlp(2).state_dict(), tmp_path / "step2.safetensors")
    prints = [ts.checkpoints(tmp_path / name, mlp()).fingerprints for name in ("a.pt", "b.safetensors", "step1.safetensors")]
    assert prints[0] == prints[1] == prints[2] != ts.checkpoints(tmp_path / "step2.safetensors", mlp()).fingerprints
    history = ts.checkpoints([tmp_path / "a.pt", tmp_path / "step2.safetensors"], mlp())
    assert history.fingerprints == tuple(fingerprint(scope) for scope in history)


def test_a_scope_gives_its_tokenizer_and_loss(tmp_path):
    folder = saved(tmp_path / "run")
    squared = lambda output, target: (output - target).square().sum(1)
    tokenizer = object()
    scope = ts.Scope(mlp(), tokenizer, loss=squared)
    samples = ts.Samples.tensors(torch.ones(2, 3), torch.zeros(2, 2))
    for history in (ts.checkpoints(folder, scope), ts.checkpoints(folder, mlp(), tokenizer=tokenizer, loss=squared)):
        assert history[1].tokenizer is tokenizer
        assert torch.allclose(history[1].losses(samples), mlp(10)(torch.ones(2, 3)).square().sum(1).detach())
    absolute = lambda output, target: (output - target).abs().sum(1)
    assert not torch.allclose(ts.checkpoints(folder, scope, loss=absolute)[1].losses(samples), history[1].losses(samples))


# Steps and learning rates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step000600.safetensors", 600), ("model_step_40.pt", 40), ("checkpoint-500.pt", 500), ("ckpt_7.bin", 7), ("iter=90.pt", 90),
        ("global_step1000.pt", 1000), ("Epoch=3-Step=120.pt", 120), ("checkpoint_2_step_500.pt", 500), ("step12.ema.pt", 12),
        ("epoch_3.pt", None), ("600.pt", None), ("step5k.pt", None), ("timestep3.pt", None), ("step0.5.pt", None), ("final.pt", None),
        ("checkpoint-500/model.safetensors", 500), ("step_3/epoch_1.pt", None), ("step_1e3.pt", None), ("checkpoint-1000-best.pt", 1000),
        ("checkpoint-2024-01-05.pt", None), ("step1_000.pt", None), ("step1,000.pt", None), ("step_1-2.pt", None),
    ],
)  # fmt: skip
def test_the_steps_that_names_tell(name, step):
    assert step_in_name(Path("runs") / name) == step


def test_steps_and_rates_from_each_place_that_tells_them(tmp_path):
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.25)
    w = lambda seed: mlp(seed).state_dict()
    torch.save({"model": w(1), "step": 5, "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    torch.save({"model_state_dict": w(2), "step": torch.tensor(6), "lr": 0.125}, tmp_path / "b.pt")
    torch.save({"state_dict": w(3), "iter_num": 7, "learning_rate": torch.tensor(0.5)}, tmp_path / "c.pt")
    save_file(w(4), tmp_path / "d.safetensors", metadata={"step": "8", "learning_rate": "0.0625"})
    torch.save({"model": w(5), "step": 9}, tmp_path / "e.pt")
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0})
    torch.save({"model": w(6), "step": 10, "optimizer_state_dict": optimizer.state_dict()}, tmp_path / "f.pt")
    rates = torch.tensor(0.1), torch.tensor(0.1)  # as a capturable optimizer keeps them
    torch.save({"model": w(7), "step": 11, "optimizer": {"param_groups": [{"lr": rate} for rate in rates]}}, tmp_path / "g.pt")
    torch.save({"model": w(8), "step": 12, "optimizer": {"param_groups": [{"lr": 0.1}, {}]}}, tmp_path / "h.pt")
    history = ts.checkpoints(tmp_path, mlp())
    assert history.learning_rates[6:] == (pytest.approx(0.1), None)
    history = history[:6]
    for name in "gh":
        (tmp_path / f"{name}.pt").unlink()
    assert history.steps == (5, 6, 7, 8, 9, 10)
    assert history.learning_rates == (0.25, 0.125, 0.5, 0.0625, None, None)  # the last has two rates, and so no one
    assert ts.checkpoints(tmp_path, mlp(), learning_rates=1).learning_rates == (1.0,) * 6
    given = [1, 2, None, 4, 5, 6]
    assert ts.checkpoints(tmp_path, mlp(), learning_rates=given).learning_rates == tuple(given)


def test_a_bare_state_dict_may_hold_its_step_and_rate(tmp_path):
    torch.save(mlp(3).state_dict() | {"step": 3, "lr": 0.5}, tmp_path / "last.pt")
    history = ts.checkpoints(tmp_path / "last.pt", mlp())
    assert (history.steps, history.learning_rates) == ((3,), (0.5,)) and torch.equal(numbers(history[0].model), numbers(mlp(3)))


def test_a_tensor_that_is_called_step_is_a_weight_of_its_model(tmp_path):
    model = mlp()
    model.register_buffer("step", torch.tensor(7))
    torch.save(model.state_dict(), tmp_path / "step3.pt")
    history = ts.checkpoints(tmp_path, model)
    assert history.steps == (3,) and int(history[0].model.step) == 7


def test_what_training_saves_beside_its_models_is_no_checkpoint(tmp_path):
    folder = saved(tmp_path / "run")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        torch.save({"state": Trap(tmp_path / "ran")}, folder / name)
    assert ts.checkpoints(folder, mlp()).steps == (0, 10, 40) and not (tmp_path / "ran").exists()
    torch.save(mlp(5).state_dict(), folder / "optimized_step50.pt")
    assert ts.checkpoints(folder, mlp()).steps == (0, 10, 40, 50)


def test_a_history_file_beside_them_tells_learning_rates(tmp_path):
    folder = saved(tmp_path / "run")
    (folder / "history.json").write_text(json.dumps({"learning_rates": {"0": 0.1, "40": 0.05, "99": 7}}))
    assert ts.checkpoints(folder, mlp()).learning_rates == (0.1, None, 0.05)
    (folder / "history.json").write_text(json.dumps({"loss": [1, 2]}))
    assert ts.checkpoints(folder, mlp()).learning_rates == (None,) * 3


def test_steps_may_be_given_beside_a_list(tmp_path):
    paths = [saved(tmp_path / "run", name="epoch{}.pt") / f"epoch{k}.pt" for k in (40, 0, 10)]
    history = ts.checkpoints([str(path) for path in paths], mlp(), steps=[0, 100, 200])
    assert history.steps == (0, 100, 200) and torch.equal(numbers(history[0].model), numbers(mlp(40)))


def test_a_run_of_the_transformers_trainer(tmp_path):
    run = tmp_path / "out"
    for step in (500, 1000, 60):
        folder = run / f"checkpoint-{step}"
        random_gpt2(seed=step).save_pretrained(folder, max_shard_size="20KB" if step == 60 else "5GB")
        log = [{"step": s, "learning_rate": 1 / s, "loss": 2.0} for s in (60, 500) if s <= step] + [
            {"step": step, "train_loss": 3.0}
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
        torch.save({"arguments": Trap(tmp_path / "ran")}, folder / "training_args.bin")
        (folder / "optimizer.pt").write_bytes(b"not read")
    random_gpt2(seed=1000).save_pretrained(run)  # the final model beside them
    torch.save({"arguments": Trap(tmp_path / "ran")}, run / "training_args.bin")
    assert (run / "checkpoint-60" / "model.safetensors.index.json").exists()
    given = random_gpt2(seed=5)
    history = ts.checkpoints(run, given)
    assert history.steps == (60, 500, 1000) and history.learning_rates == (1 / 60, 1 / 500, None) and history.name == "out"
    for step, scope in zip(history.steps, history):
        assert torch.equal(scope.losses(IDS), ts.Scope(random_gpt2(seed=step)).losses(IDS))
    assert ts.checkpoints([run / "checkpoint-500"], given).steps == ts.checkpoints(run / "checkpoint-500", given).steps == (500,)
    assert ts.checkpoints([run / "checkpoint-60" / "..", run / "checkpoint-500"][1:], given).steps == (500,)
    assert torch.equal(numbers(given), numbers(random_gpt2(seed=5))) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("trainer_state.json", {"global_step": 5, "log_history": [3]}, "has a 'log_history' that is no list of what was logged"),
        ("trainer_state.json", {"global_step": 5, "log_history": {"a": 1}}, "has a 'log_history' that is no list"),
        ("model.safetensors.index.json", {"weight_map": {"0.weight": 3}}, "index.json names no files of weights"),
        (
            "model.safetensors.index.json",
            {"weight_map": {"0.weight": "../checkpoint-6/model.safetensors"}},
            "which is not beside it",
        ),
    ],
)
def test_what_a_trainers_files_cannot_say_is_one_line(tmp_path, file, content, says):
    for step in (5, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file(mlp(step).state_dict(), tmp_path / f"checkpoint-{step}" / "model.safetensors")
    (tmp_path / "runs").mkdir()
    assert ts.checkpoints(tmp_path, mlp()).steps == (5, 6)
    if "index" in file:
        (tmp_path / "checkpoint-5" / "model.safetensors").unlink()
    (tmp_path / "checkpoint-5" / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=says) as caught:
        ts.checkpoints(tmp_path, mlp())
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_was_not_saved_whole_is_not_passed_over(tmp_path):
    for step in (5, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    save_file(mlp(5).state_dict(), tmp_path / "checkpoint-5" / "model.safetensors")
    (tmp_path / "checkpoint-6" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="checkpoint-6 holds no weights, and others beside it do"):
        ts.checkpoints(tmp_path, mlp())


def test_a_trainer_that_really_ran(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": row, "labels": row} for row in torch.randint(1, 50, (8, 9), generator=torch.Generator().manual_seed(0))]
    arguments = TrainingArguments(
        tmp_path / "out", max_steps=4, save_steps=2, logging_steps=1, learning_rate=1e-3, per_device_train_batch_size=4,
        report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        Trainer(random_gpt2(), arguments, train_dataset=rows).train()
    history = ts.checkpoints(tmp_path / "out", random_gpt2())
    assert history.steps == (2, 4) and all(0 < rate <= 1e-3 for rate in history.learning_rates)
    assert history[0].losses(IDS) != history[1].losses(IDS)


# What the weights of one model may look like ---------------------------------------------------------------------------


def test_tied_weights_under_either_name_or_both(tmp_path):
    model = random_gpt2(seed=1)
    body, head = "transformer.wte.weight", "lm_head.weight"
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    for step, left_out in enumerate((body, head, None)):
        save_file({k: v for k, v in whole.items() if k != left_out}, tmp_path / f"step{step}.safetensors")
    save_model(model, str(tmp_path / "step3.safetensors"))
    expected = ts.Scope(model).losses(IDS)
    for step in range(4):
        scope = ts.checkpoints(tmp_path / f"step{step}.safetensors", random_gpt2(seed=9))[0]
        assert torch.equal(scope.losses(IDS), expected) and scope.model.lm_head.weight is scope.model.transformer.wte.weight
    save_file(whole | {head: whole[head] + 1}, tmp_path / "step0.safetensors")
    with pytest.raises(ValueError, match=f"has other numbers in {body} than in {head}, which are one weight"):
        ts.checkpoints(tmp_path / "step0.safetensors", model)
    save_file({k: v for k, v in whole.items() if k not in (body, head)}, tmp_path / "step0.safetensors")
    with pytest.raises(ValueError, match=f"it lacks {body}"):
        ts.checkpoints(tmp_path / "step0.safetensors", model)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_compiled_and_parallel_models(tmp_path, prefix):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, x):
            return self._orig_mod(x)

    torch.save({prefix + name: value for name, value in mlp(3).state_dict().items()}, tmp_path / "step3.pt")
    torch.save(mlp(4).state_dict(), tmp_path / "step4.pt")
    for given in (mlp(), Wrapped(mlp())):
        history = ts.checkpoints(tmp_path, given)
        assert [torch.equal(numbers(scope.model), numbers(mlp(step))) for step, scope in zip((3, 4), history)] == [True, True]
    inner = nn.ModuleDict({"module": nn.Linear(3, 2)})  # a name of the model's own
    save_file(inner.state_dict(), tmp_path / "step5.safetensors")
    assert torch.equal(numbers(ts.checkpoints(tmp_path / "step5.safetensors", inner)[0].model), numbers(inner))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_another_precision_are_read_in_the_models_own(tmp_path, dtype):
    torch.save(mlp(3).to(dtype).state_dict(), tmp_path / "step3.pt")
    scope = ts.checkpoints(tmp_path, mlp())[0]
    assert scope.model[0].weight.dtype == torch.float32
    assert torch.equal(numbers(scope.model), numbers(mlp(3).to(dtype).float()))


class Masked(nn.Module):
    """A linear layer with a causal mask among its buffers, and, if wanted, a running mean."""

    def __init__(self, mask=True, mean=False, persistent=True):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        if mask:
            self.register_buffer("bias", torch.ones(4, 4).tril()[None, None], persistent=persistent)
        if mean:
            self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.linear(x)


def test_causal_masks_may_be_in_the_file_or_in_the_model_only(tmp_path):
    for step, (stored, given) in enumerate(
        [(Masked(), Masked(mask=False)), (Masked(mask=False), Masked()), (Masked(), Masked(persistent=False))]
    ):
        torch.save(stored.state_dict(), tmp_path / f"step{step}.pt")
        assert torch.equal(numbers(ts.checkpoints(tmp_path / f"step{step}.pt", given)[0].model), numbers(stored))


class Counting(nn.Linear):
    def __init__(self, seed):
        super().__init__(2, 2)
        self.load_state_dict({"weight": torch.full((2, 2), float(seed)), "bias": torch.zeros(2)})
        self.register_buffer("count", torch.tensor(seed))


@pytest.mark.parametrize("lacking", [1, 2])
def test_what_one_file_may_lack_does_not_come_from_another_file(tmp_path, lacking):
    for step in (1, 2):
        state = Counting(step).state_dict()
        if step == lacking:
            del state["count"]
        torch.save(state, tmp_path / f"step{step}.pt")
    history = ts.checkpoints(tmp_path, Counting(7))
    torch.save(Counting(3).state_dict() | {"count": torch.tensor(2.5)}, tmp_path / "step3.pt")
    with pytest.raises(ValueError, match="count is float32 there, with numbers that int64 cannot hold"):
        ts.checkpoints(tmp_path, Counting(7))
    assert [int(scope.model.count) for scope in history] == ([7, 2] if lacking == 1 else [1, 7])


def test_checkpoints_that_differ_in_a_running_mean_alone_differ(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(2))
    for step in (1, 2):
        model[0].running_mean += step
        torch.save(model.state_dict(), tmp_path / f"step{step}.pt")
    history = ts.checkpoints(tmp_path, model)
    assert [scope.model[0].running_mean[0].item() for scope in history] == [1, 3]
    torch.save(model.state_dict(), tmp_path / "step1.pt")
    with pytest.raises(ValueError, match=r"step1\.pt has other weights than when this history was made"):
        history[0]


def test_running_means_are_of_the_training_and_may_not_be_missing(tmp_path):
    model = Masked(mean=True)
    torch.save(dict(model.named_parameters()), tmp_path / "step0.pt")
    with pytest.raises(ValueError, match=r"it lacks norm\.running_mean, norm\.running_var"):
        ts.checkpoints(tmp_path, model)
    model.norm.running_mean.fill_(3.0)
    torch.save(model.state_dict(), tmp_path / "step0.pt")
    assert ts.checkpoints(tmp_path, Masked(mean=True))[0].model.norm.running_mean.tolist() == [3.0, 3.0]


def test_old_files_of_the_transformers_library_with_masks_in_them(tmp_path):
    model = random_gpt2(seed=2)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(24, 24, dtype=torch.uint8).tril()[None, None] for i in (0, 1)}
    more = {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in (0, 1)}
    torch.save(dict(model.state_dict()) | masks | more, tmp_path / "step0.pt")
    assert torch.equal(ts.checkpoints(tmp_path, random_gpt2())[0].losses(IDS), ts.Scope(model).losses(IDS))


def test_what_a_class_of_the_transformers_library_ignores_is_ignored(tmp_path):
    torch.save(mlp(3).state_dict() | {"embeddings.position_ids": torch.arange(5)}, tmp_path / "step3.pt")
    model = mlp()
    with pytest.raises(ValueError, match=r"it has embeddings\.position_ids, which the model has not"):
        ts.checkpoints(tmp_path, model)
    model._keys_to_ignore_on_load_unexpected = [r"position_ids$"]
    assert ts.checkpoints(tmp_path, model).steps == (3,)


# What is wrong is one line ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["a pickle", "a torch file", "beside weights", "an older file", "a whole model"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(tmp_path, form):
    ran, file = tmp_path / "ran", tmp_path / "step1.pt"
    trap = Trap(ran)
    if form == "a pickle":
        file.write_bytes(pickle.dumps(trap))
    elif form == "a whole model":
        torch.save(mlp(), file)
    else:
        content = {"model": mlp(1).state_dict(), "more": trap} if form == "beside weights" else trap
        torch.save(content, file, _use_new_zipfile_serialization=form != "an older file")
    with pytest.raises(
        ValueError, match=r"step1\.pt is not weights only \(it (asks for|holds) .*nothing was run; get the model as safetensors"
    ) as caught:
        ts.checkpoints(tmp_path, mlp())
    assert "\n" not in str(caught.value) and not ran.exists()
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    if form != "a whole model":  # the trap is one
        pickle.loads(file.read_bytes()) if form == "a pickle" else torch.load(file, weights_only=False)
        assert ran.exists()


def cut(file, share=0.5):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def other(**changed):
    """Saves a state dict with entries changed (None: left out) as step 10."""

    def spoil(folder):
        state = {
            k: v
            for k, v in (mlp(10).state_dict() | {k.replace("_", "."): v for k, v in changed.items()}).items()
            if v is not None
        }
        torch.save(state, folder / "step000010.pt")

    return spoil


def again(folder):
    shutil.copy(folder / "step000010.pt", folder / "step000040.pt")


def as_safetensors(folder):
    (folder / "step000010.pt").unlink()
    save_file(mlp(10).state_dict(), folder / "step000010.safetensors")
    cut(folder / "step000010.safetensors")


def shards(folder):
    for file in folder.glob("*.pt"):
        file.unlink()
    (folder / "step_7").mkdir()
    index = folder / "step_7" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"0.weight": "no.safetensors"}}))


def put(**content):
    return lambda folder: torch.save({"model": mlp(10).state_dict()} | content, folder / "step000010.pt")


def raw(content):
    return lambda folder: (folder / "step000010.pt").write_bytes(content)


FAULTS = {
    "the same weights twice": (again, ValueError, r"the weights of steps 10 and 40 are the same \(.*step000010.pt and .*step000040.pt\): one of the two is not what its name says"),
    "the first weights again": (lambda f: shutil.copy(f / "step000000.pt", f / "step000040.pt"), ValueError, "the weights of steps 0 and 40 are the same"),
    "a step twice": (lambda f: torch.save(mlp(3).state_dict(), f / "model_step_10.pt"), ValueError, r"step 10 occurs twice: .*model_step_10.pt and .*step000010.pt"),
    "two steps": (put(step=11), ValueError, "the step of .*step000010.pt is 10 by its name and 11 by its 'step'"),
    "two long steps": (lambda f: torch.save({"model": mlp(3).state_dict(), "step": 2_000_001}, f / "step2000000.pt"), ValueError, "is 2000000 by its name and 2000001 by its 'step'"),
    "no step": (lambda f: torch.save(mlp(3).state_dict(), f / "last.pt"), ValueError, "nothing tells the step of .*last.pt: name it step000600.pt, or give a list of files and steps="),
    "a step that is none": (put(step=1.5), ValueError, "the 'step' of .*step000010.pt is 1.5: a training step is a whole number"),
    "two rates": (put(lr=0.1, learning_rate=0.2), ValueError, "the learning rate of .* is 0.1 by its 'lr' and 0.2 by its 'learning_rate'"),
    "a rate that is none": (put(lr=float("nan")), ValueError, "the 'lr' of .* is nan: a learning rate is a finite number"),
    "a weight less": (other(**{"0_weight": None}), ValueError, r"step000010.pt is of another model than the Sequential given: it lacks 0\.weight$"),
    "a weight more": (other(**{"4_weight": torch.zeros(2)}), ValueError, r"it has 4\.weight, which the model has not"),
    "another shape": (other(**{"0_weight": torch.zeros(5, 3)}), ValueError, r"0\.weight is \(5, 3\) there and \(2, 3\) in the model$"),
    "turned": (other(**{"0_weight": torch.zeros(3, 2)}), ValueError, r"0\.weight is \(3, 2\) there and \(2, 3\) in the model \(turned: nn.Linear keeps it the other way than Conv1D\)"),
    "quantised": (other(**{"0_weight": torch.zeros(2, 3, dtype=torch.int8)}), ValueError, r"0\.weight is int8 there, as quantised weights are"),
    "cut off": (lambda f: cut(f / "step000010.pt"), OSError, "step000010.pt cannot be read: it is cut off or another kind of file"),
    "cut off near its end": (lambda f: cut(f / "step000010.pt", 0.95), OSError, "step000010.pt cannot be read: it is cut off"),
    "empty": (raw(b""), OSError, "step000010.pt cannot be read"),
    "a text": (raw(b"version https://git-lfs.github.com/spec/v1\n"), OSError, "step000010.pt cannot be read"),
    "cut safetensors": (as_safetensors, OSError, "step000010.safetensors cannot be read as safetensors .* cut off"),
    "a list": (lambda f: torch.save([torch.zeros(2)], f / "step000010.pt"), ValueError, "step000010.pt holds a list, not weights by name"),
    "no tensors": (lambda f: torch.save({}, f / "step000010.pt"), ValueError, "step000010.pt holds no tensors"),
    "not only tensors": (lambda f: torch.save({"net": mlp().state_dict()}, f / "step000010.pt"), ValueError, "has 'net', a OrderedDict, where a state dict is expected"),
    "a shard less": (shards, FileNotFoundError, "names no.safetensors, and there is no such file"),
    "two models": (put(state_dict=mlp(3).state_dict()), ValueError, "has weights under 'model' and under 'state_dict'"),
    "a name that is none": (lambda f: torch.save({3: torch.zeros(1)}, f / "step000010.pt"), ValueError, "has weights under 3, which is no name"),
    "more than the model can hold": (other(**{"0_weight": torch.full((2, 3), 1e300, dtype=torch.float64)}), ValueError, r"0\.weight is float64 there, with numbers that float32 cannot hold"),
    "sparse": (other(**{"0_weight": torch.ones(2, 3).to_sparse()}), ValueError, r"0\.weight is sparse_coo there"),
    "a sparse tensor more": (other(more=torch.eye(3).to_sparse()), ValueError, "it has more, which the model has not"),
    "a tensor that claims 4 TB": (other(more=torch.ones(1).expand(10**6, 10**6)), ValueError, "it has more, which the model has not"),
    "a link to nothing": (lambda f: (f / "step000050.pt").symlink_to(f / "no.pt"), FileNotFoundError, "step000050.pt is a link to what is not there"),
    "two rates that are nearly one": (put(lr=0.1, learning_rate=0.1001), ValueError, "is 0.1 by its 'lr' and 0.1001 by its 'learning_rate'"),
    "a weight twice, wrapped and not": (other(module_0_weight=torch.zeros(2, 3)), ValueError, r"it has module\.0\.weight, which the model has not"),
    "a history that is no JSON": (lambda f: (f / "history.json").write_text("{nope"), ValueError, "history.json is not JSON"),
    "a rate beside that disagrees": (lambda f: (put(lr=0.1)(f), (f / "history.json").write_text('{"learning_rates": {"10": 0.2}}')), ValueError, "is 0.1 by its 'lr' and 0.2 by history.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_file_is_one_line_when_the_history_is_made(tmp_path, name):
    spoil, error, says = FAULTS[name]
    folder = saved(tmp_path / "run")
    assert len(ts.checkpoints(folder, mlp())) == 3
    spoil(folder)
    with pytest.raises(error, match=says) as caught:
        ts.checkpoints(folder, mlp())
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


CALLS = {
    "no such folder": (lambda f: ts.checkpoints(f / "no", mlp()), FileNotFoundError, "there is no folder or file '.*no'"),
    "no such file": (lambda f: ts.checkpoints([f / "step1.pt"], mlp()), FileNotFoundError, "there is no checkpoint .*step1.pt"),
    "an empty list": (lambda f: ts.checkpoints([], mlp()), ValueError, "the list of checkpoints is empty"),
    "an empty folder": (lambda f: ts.checkpoints(f.parent / "empty", mlp()), FileNotFoundError, "has no checkpoints: it is empty; give .safetensors, .pt"),
    "other files": (lambda f: ts.checkpoints(f.parent / "texts", mlp()), FileNotFoundError, "has no checkpoints: it holds a.txt; give"),
    "no paths": (lambda f: ts.checkpoints([1, 2], mlp()), TypeError, "a list of paths, and a list came that is neither"),
    "no model": (lambda f: ts.checkpoints(f), TypeError, r"needs the model: ts.checkpoints\(folder_or_paths, model"),
    "no model of a name": (lambda f: ts.checkpoints(str(f)), TypeError, "is there, and nothing says of which model: give it"),
    "no such name": (lambda f: ts.checkpoints("large"), LookupError, "there is no packaged history 'large': there are 'tiny' and 'digits'"),
    "no nn.Module": (lambda f: ts.checkpoints(f, mlp().state_dict()), TypeError, "model is a OrderedDict: give a torch.nn.Module, or a Scope"),
    "out of order": (lambda f: ts.checkpoints([f / "step000010.pt", f / "step000000.pt"], mlp()), ValueError, "step000000.pt is of step 0 and comes after step 10: give the files in the order"),
    "a file twice": (lambda f: ts.checkpoints([f / "step000010.pt"] * 2, mlp()), ValueError, "step 10 occurs twice"),
    "steps of a folder": (lambda f: ts.checkpoints(f, mlp(), steps=[0, 10, 40]), ValueError, "steps= goes with a list of files"),
    "steps that disagree": (lambda f: ts.checkpoints([f / "step000010.pt"], mlp(), steps=[20]), ValueError, "is 10 by its name and 20 by steps="),
    "one step": (lambda f: ts.checkpoints([f / "step000010.pt"], mlp(), steps=10), TypeError, "steps is 10: give a list, one for each of 1 checkpoints"),
    "too few steps": (lambda f: ts.checkpoints([f / "step000010.pt"], mlp(), steps=[]), ValueError, "steps has 0 entries for 1 checkpoints"),
    "too many rates": (lambda f: ts.checkpoints(f, mlp(), learning_rates=[0.1] * 4), ValueError, "learning_rates has 4 entries for 3 checkpoints"),
    "a negative rate": (lambda f: ts.checkpoints(f, mlp(), learning_rates=-0.1), ValueError, "an entry of learning_rates= is -0.1"),
    "a rate of the packaged": (lambda f: ts.checkpoints("digits", learning_rates=0.1), TypeError, "a history of your own needs the model"),
    "another model": (lambda f: ts.checkpoints("digits")._model and ts.checkpoints(f, new_digits_model()), ValueError, "is of another model than the Sequential given: it lacks 4.weight, 4.bias; "),
    "no such checkpoint": (lambda f: ts.checkpoints(f, mlp())[3], IndexError, "there is no checkpoint 3: run has 3, at steps 0, 10, 40"),
    "a text of rates": (lambda f: ts.checkpoints(f, mlp(), learning_rates="a12"), ValueError, "an entry of learning_rates= is 'a12'"),
    "a text of steps": (lambda f: ts.checkpoints([f / "step000010.pt"], mlp(), steps="1"), TypeError, "steps is '1': give a list"),
    "folders and files": (lambda f: ts.checkpoints(f.parent / "both", mlp()), ValueError, "has folders of checkpoints and the file step1.pt: give a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_cannot_be_meant_is_one_line(tmp_path, name):
    call, error, says = CALLS[name]
    folder = saved(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "both" / "checkpoint-5").mkdir(parents=True)
    save_file(mlp(5).state_dict(), tmp_path / "both" / "checkpoint-5" / "model.safetensors")
    torch.save(mlp(1).state_dict(), tmp_path / "both" / "step1.pt")
    with pytest.raises(error, match=says) as caught:
        call(folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_after_the_history_was_made_is_noticed(tmp_path):
    history = ts.checkpoints(saved(tmp_path / "run"), mlp())
    torch.save(mlp(5).state_dict(), tmp_path / "run" / "step000010.pt")
    with pytest.raises(ValueError, match=r"step000010\.pt has other weights than when this history was made"):
        history[1]


# Histories in use -----------------------------------------------------------------------------------------------------


def test_a_study_along_a_history_of_ones_own_is_each_checkpoint_alone(tmp_path):
    test = ts.datasets.digits(n=24)
    train_digits(ts.datasets.digits("train"), n_steps=450, save_at=(0, 360, 450), folder=tmp_path)
    history = ts.checkpoints(tmp_path, ts.Scope(new_digits_model()))
    study = ts.Study(history, test).run(ts.recipes.gradient_health)
    result = study["gradient_health"]
    assert result["checkpoint"].values.tolist() == [0, 360, 450]
    for i, step in enumerate(history.steps):
        alone = ts.recipes.gradient_health(history[i], test)
        assert (result["grad_norm"].sel(checkpoint=step) == alone["grad_norm"]).all()
    said = json.loads(result.attrs["tensorscope"])["members"]
    assert tuple(said[str(step)]["weights"] for step in history.steps) == history.fingerprints


def test_the_packaged_digits_are_a_history_with_learning_rates():
    history = ts.checkpoints("digits")
    assert history.steps == (0, 360, 450, 675, 900, 1350, 2700) and history.learning_rates == (0.2,) * 7
    assert history.name == "digits" and history[0].name == "digits@0"
    test = ts.datasets.digits()
    losses = [float(scope.losses(test).mean()) for scope in history]
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(numbers(history[-1].model), numbers(ts.load("digits").model))
    assert torch.equal(numbers(history[0].model), numbers(ts.load("digits", checkpoint=0).model))
    study = ts.Study(history[:2], test[:16]).run(ts.recipes.gradient_health)
    assert study["gradient_health"].sizes["checkpoint"] == 2


def test_files_of_the_packaged_transformer_read_as_ones_own(tmp_path):
    packaged = ts.checkpoints("tiny")
    for i in (1, 4):
        shutil.copy(packaged.files[i], tmp_path)
    given = ts.load("tiny", seed=1)
    own = ts.checkpoints(tmp_path, given)
    assert own.fingerprints == (packaged.fingerprints[1], packaged.fingerprints[4]) and own.steps == (200, 1000)
    assert own[0].tokenizer is given.tokenizer and own[1].losses(["To be"]) == packaged[4].losses(["To be"])
    assert load_file(packaged.files[1]).keys() == dict(given.model.named_parameters()).keys()
