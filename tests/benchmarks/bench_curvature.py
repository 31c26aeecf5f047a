"""Products with curvature against a gradient, and searches for eigenvalues against those of two other libraries."""

import importlib.util
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.numerics.lanczos import SPARE, Lanczos
from tensorscope_nb.recipes.search import Search
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.objective import Objective

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_gradients import bare_pass
from other_libraries import FOLDER
from second_library import by_eigenthings, by_scipy, curvlinops_operator, eigenthings_operator, supervised
from side_by_side import line, ratios

sys.path.append(str(FOLDER))  # only now: torch, when it is imported, takes notice of what is there
GB = 2**30
TOLERANCE = 1e-4
STEPS = 80  # of Lanczos without restarts, as many as 20 pairs of the packaged model take


def product(scope, samples, matrix, *, kept):
    """With a vector of length 1; the graphs kept, or made again each time."""
    curvature = Curvature(Objective(scope, samples), matrix)
    vector = torch.randn(curvature.size, generator=torch.Generator().manual_seed(0))
    with ts.options(memory=4 * GB):
        size = curvature.parts[0].stop
    if not kept:
        curvature = Curvature(curvature.objective, matrix, chunk=size)
        with ts.options(memory=1):
            curvature(vector)
    return partial(curvature, vector / vector.norm())


def against_gradient(name, scope, samples, rounds):
    goals = {"Hessian, graph kept": "<= 2.1", "Gauss-Newton, graph kept": "<= 2.3"}
    calls = {
        f"{words}, {how}": product(scope, samples, matrix, kept=how == "graph kept")
        for matrix, words in (("hessian", "Hessian"), ("ggn", "Gauss-Newton"))
        for how in ("graph kept", "graph made anew")
    }
    for what, value in ratios(bare_pass(scope, samples), calls, rounds, time.process_time).items():
        print(line(f"{name}: {what} / forward and backward", value, goals.get(what, "-")), flush=True)


def searched(scope, samples, k):
    with ts.options(progress=False):
        search = Search(Curvature(Objective(scope, samples), "hessian"), k, "LA", TOLERANCE, None, 0)
        for _ in search.steps():
            pass
    return search


def worst(curvature, values, vectors):
    """max ‖Hv − λv‖ / λ₁, and how many are beyond the tolerance."""
    pairs = zip(values.tolist(), torch.as_tensor(vectors), strict=True)
    residuals = torch.stack([(curvature(v) - value * v).norm() for value, v in pairs]) / float(values.max())
    return float(residuals.max()), int((residuals > TOLERANCE).sum())


def against_libraries(name, scope, samples, k, rounds):
    given, curvature, found = supervised(scope, samples), Curvature(Objective(scope, samples), "hessian"), {}

    def ours():
        search = searched(scope, samples, k)
        found["ours"] = search.lanczos.n_products, search.pairs.values, search.vectors

    def other(library, solve, make):
        forwards = []
        handle = given[0].register_forward_hook(lambda *_: forwards.append(1))  # one for each product
        with sdpa_kernel(SDPBackend.MATH):
            pairs = solve(make("hessian", *given))
        handle.remove()
        found[library] = len(forwards), *pairs

    by_steps = lambda steps, **options: lambda of: by_eigenthings(of, k, "LA", steps, **options)
    solvers = {
        "curvlinops and scipy": (lambda of: by_scipy(of, k, "LA", TOLERANCE), curvlinops_operator),
        "hessian-eigenthings": (by_steps(STEPS, reorthogonalize=True), eigenthings_operator),
    }
    calls = {library: partial(other, library, *how) for library, how in solvers.items()}
    goals = {"curvlinops and scipy": "<= 0.5", "hessian-eigenthings": "<= 0.75"}
    for library, value in ratios(ours, calls, rounds, time.process_time).items():
        print(line(f"{name}, k={k}: CPU time, ours / {library}", 1 / value, goals[library]), flush=True)
    other("hessian-eigenthings, its default", by_steps(2 * k), eigenthings_operator)
    for library, (n, values, vectors) in found.items():
        residual, beyond = worst(curvature, values, vectors)
        print(
            f"{name}, k={k}: {library}: {n} products, worst residual {residual:.1e} of the largest, {beyond} of {k} beyond 1e-4"
        )


def by_basis(name, scope, samples, k):
    curvature = Curvature(Objective(scope, samples), "hessian")
    for basis in (k + SPARE, 100):
        lanczos = Lanczos(curvature, curvature.size, k, tolerance=TOLERANCE, basis=basis, most_products=300, seed=0)
        for _ in lanczos.steps():
            pass
        converged = int(lanczos.pairs().converged.sum())
        print(f"{name}, k={k}, a basis of {basis}: {lanczos.n_products} products, {converged} converged", flush=True)


def growth():
    """Seconds of a product, and of a step with its orthogonalisation, against the weights and k."""
    print("weights, k: seconds of a product, seconds of a step, MB of the smallest basis, of a roomy one")
    shapes = {"n_embd": 256, "n_layer": 6, "n_head": 8}, {"n_embd": 512, "n_layer": 8, "n_head": 8}
    common = {"vocab_size": 512, "n_positions": 64, "bos_token_id": None, "eos_token_id": None}
    models = [GPT2LMHeadModel(GPT2Config(**common, **shape)).eval() for shape in shapes]
    for scope in (ts.load("tiny"), *map(ts.Scope, models)):
        curvature = Curvature(Objective(scope, tokens(8, 512)), "hessian")
        for k in (5, 10, 20):
            lanczos = Lanczos(curvature, curvature.size, k, basis=k + SPARE, most_products=k + SPARE, seed=0)
            steps = lanczos.steps()
            next(steps)  # makes the graphs
            start = time.perf_counter()
            n = sum(1 for _ in steps)
            step = (time.perf_counter() - start) / n
            start = time.perf_counter()
            for _ in range(5):
                curvature(lanczos.basis.rows[0])
            alone = (time.perf_counter() - start) / 5
            sizes = [rows * 4 * curvature.size / 1e6 for rows in (k + SPARE, 100)]
            print(f"{curvature.size:>10,} {k:>3} {alone:8.3f} {step:8.3f} {sizes[0]:8.0f} {sizes[1]:8.0f}", flush=True)


def tokens(n, vocabulary):
    return ts.Samples.tokens(torch.randint(vocabulary, (n, 64), generator=torch.Generator().manual_seed(0)))


def large():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ts.Scope(GPT2LMHeadModel(GPT2Config()).eval()), tokens(4, 50257)


def search_of_large(k):
    """In a process of its own: its peak memory is that of the search."""
    scope, samples = large()
    start = time.perf_counter()
    with ts.options(memory=8 * GB, progress=False):
        found = ts.recipes.hessian_eigenvalues(scope, samples, k=k)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"124M, 4 x 64, k={k}, memory of 8 GiB: {found.attrs['n_products']} products, {int(found['converged'].sum())} converged, "
        f"{seconds:.0f} s, peak memory of the process {peak:.1f} GiB"
    )


def main() -> None:
    torch.set_num_threads(1)
    tiny = ts.load("tiny")
    against_gradient("tiny, 32 x 128", tiny, ts.datasets.shakespeare(tiny, n=32, length=128), 15)
    passages = ts.datasets.shakespeare(tiny, n=32, length=64)
    if importlib.util.find_spec("curvlinops") and importlib.util.find_spec("hessian_eigenthings"):
        against_libraries("tiny, 32 x 64", tiny, passages, 20, 2)
    else:
        print("curvlinops and hessian-eigenthings are not installed")
    by_basis("tiny, 32 x 64", tiny, passages, 20)
    growth()
    scope, samples = large()
    against_gradient("124M, 4 x 64", scope, samples, 3)
    try:
        with ts.options(memory=8 * GB):
            ts.recipes.hessian_eigenvalues(scope, samples, k=20)
    except ValueError as error:
        print(f"124M, k=20, memory of 8 GiB: {error}", flush=True)
    del scope
    subprocess.run([sys.executable, __file__], check=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    search_of_large(5)
