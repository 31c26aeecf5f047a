"""Sweeps and studies over the workers of executors: equal results, and an error where a worker dies."""

import multiprocessing
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from dying_model import Dying
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.sweep import bar
from tensorscope_nb.sweep.spread import Call, run_all, shipped

IDS = torch.randint(1, 50, (7, 12), generator=torch.Generator().manual_seed(1))
SAMPLES = ts.Samples.tokens(IDS)
RECIPES = [
    ts.recipes.gradient_health.using(per_sample=True),
    ts.recipes.grouped_fisher.using(granularity="head", per_sample=True),
    ts.recipes.fisher_spectrum.using(per_sample=True),
    ts.recipes.fisher_importance.using(per_sample=True, sample_unit="token"),
    ts.recipes.taylor_importance.using(variant="squared", per_sample=True),
    ts.recipes.critical_weights.using(top=9, per_sample=True),
]


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as made,
    ):
        yield made


def alike(a, b):
    a, b = (x if isinstance(x, xr.Dataset) else x.summary() for x in (a, b))
    assert a.sizes == b.sizes
    for name in a.variables:
        if a[name].dtype.kind in "fiu":
            assert np.allclose(a[name], b[name], rtol=1e-4, atol=1e-9, equal_nan=True), name
        else:
            assert (a[name].values == b[name].values).all(), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
@pytest.mark.parametrize("kind", ["pool", "dask"])
def test_an_executor_changes_nothing(kind, recipe, request):
    scope = ts.Scope(random_gpt2())
    alike(recipe(scope, SAMPLES, executor=request.getfixturevalue(kind)), recipe(scope, SAMPLES))


def test_a_study_of_models_is_spread_by_model(pool):
    scopes = {"a": ts.Scope(random_gpt2(0)), "b": ts.Scope(random_gpt2(1)), "c": ts.Scope(random_gpt2(2))}
    spread, alone = ts.Study(scopes, SAMPLES), ts.Study(scopes, SAMPLES)
    recipes = (ts.recipes.ablation, ts.recipes.fisher_spectrum, ts.recipes.fisher_importance)
    spread.run(*recipes, executor=pool)
    alone.run(*recipes)
    for name in alone:
        assert spread[name]["model"].values.tolist() == list(scopes)
        alike(spread[name], alone[name])


def test_a_study_of_checkpoints_with_a_tokenizer(pool):
    history = ts.checkpoints("tiny")
    recipe = ts.recipes.induction_heads.using(n_sequences=2, period=10)
    alike(ts.Study(history).run(recipe, executor=pool)["induction_heads"], ts.Study(history).run(recipe)["induction_heads"])


def test_a_worker_that_dies_is_an_error_that_names_its_shard():
    samples = ts.Samples.tensors(torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2)
    scope = ts.Scope(Dying())
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one,
        pytest.raises(
            RuntimeError, match=r"^the worker died in shard 1 of 1 \(samples samples-0 to samples-5\) .* smaller chunk="
        ),
    ):
        ts.recipes.fisher_importance(scope, samples, executor=one)


def test_a_dask_worker_that_dies_is_one_too():
    distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")
    import dask

    samples = ts.Samples.tensors(torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as made,
        pytest.raises(RuntimeError, match=r"^the worker died in shard 1 of 4 \(samples samples-0 to samples-1\) .*"),
    ):
        ts.recipes.fisher_importance(ts.Scope(Dying()), samples, executor=made)


def test_an_error_in_a_worker_is_the_same_error(pool):
    samples = ts.Samples.tensors(torch.tensor([[0.0, 1], [2, 3], [torch.nan, 0], [1, 1]]), torch.tensor([0, 1, 0, 1]))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the loss of sample 'samples-2' is nan") as caught:
        ts.recipes.fisher_importance(ts.Scope(model), samples, executor=pool)
    assert caught.value.__notes__ == ["in shard 2 of 2 (samples samples-2 to samples-3)"]


def test_what_cannot_work_is_said():
    scope = ts.Scope(random_gpt2())
    forked = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pytest.raises(ValueError, match=r"forked processes, which hang .*get_context\('spawn'\)"):
        ts.recipes.fisher_importance(scope, SAMPLES, executor=forked)
    with pytest.raises(TypeError, match=r"executor= takes a concurrent\.futures\.Executor"):
        ts.recipes.fisher_importance(scope, SAMPLES, executor=4)
    custom = ts.Scope(torch.nn.Linear(2, 2), loss=lambda out, y: out.sum(1))
    rows = ts.Samples.tensors(torch.ones(3, 2), torch.zeros(3))
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match=r"cannot be sent to workers .* in a module"):
        ts.recipes.fisher_importance(custom, rows, executor=threads)


class Backwards(Executor):
    """Works at once, and says nothing of how many it has."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_will_do_and_threads_keep_their_number():
    scope, threads = ts.Scope(random_gpt2()), torch.get_num_threads()
    alike(ts.recipes.fisher_spectrum(scope, SAMPLES, executor=Backwards()), ts.recipes.fisher_spectrum(scope, SAMPLES))
    assert torch.get_num_threads() == threads


def test_threads_of_one_process_take_turns():
    """They have one model, whose hooks would hear of what the others run: the numbers were wrong now and then."""
    inside: list[int] = []
    most = 0

    def work(scope):
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.pop()
        return b""

    with shipped([ts.load("tiny")]) as (file,), ThreadPoolExecutor(3) as threads, bar(6, "", False) as done:
        assert list(run_all(threads, [Call("", file, work, ())] * 6, done)) == [b""] * 6
    assert most == 1
