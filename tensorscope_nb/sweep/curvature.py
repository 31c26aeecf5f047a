"""A curvature matrix of the mean loss as an operator: its products with vectors are sums over chunks of samples.

The graph of each chunk is made once and kept where all of them fit the memory option; else it is made again for each
product, which costs about half as much again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics.curvature import (
    Forms,
    Product,
    Tangent,
    fisher_product,
    gauss_newton_forms,
    gauss_newton_product,
    hessian_forms,
    hessian_product,
)
from tensorscope_nb.scope.flat import shaped
from tensorscope_nb.scope.forward import bytes_per_sample, usual_chunk
from tensorscope_nb.scope.interrupts import allowed
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.objective import Objective

if TYPE_CHECKING:
    from torch.nn import Parameter

Matrix = Literal["hessian", "ggn", "fisher"]
FEW = 2  # samples of the trial that counts bytes
CACHED = 100 * 2**20  # bytes of a chunk's graph, beyond which its activations fall out of a processor's cache between two uses
LARGE = 8  # times the bytes of the weights: below that the sums over chunks, each as large as the weights, cost more than that
ONCE = (
    "derivative for",
    "once_differentiable",
    "not differentiable twice",
    "does not support double backward",
    "is not implemented",
)


class Curvature:
    """v ↦ C v, with C the Hessian of L, its Gauss–Newton part JᵀHJ, or the empirical Fisher Σᵢ wᵢ gᵢ gᵢᵀ / Σ w.

    With the losses summed over tokens (``reduction="sum"``) a sample counts wᵢ times in L, and its gᵢ is of its summed loss.
    """

    def __init__(self, objective: Objective, matrix: Matrix, *, chunk: int | None = None) -> None:
        self.objective, self.matrix = objective, matrix
        self.size = objective.size
        self.dtype, self.device = objective.parameters[0].dtype, objective.parameters[0].device
        self._asked = chunk
        self._parts: list[slice] = []  # the chunks
        self._kept: list[Product] | None = None
        self._each = 0.0

    @property
    def nbytes(self) -> float:
        """Of the graphs that are held at a time."""
        self._plan()
        return self._each * (len(self.objective.samples) if self._kept is not None else self._parts[0].stop)

    @property
    def parts(self) -> list[slice]:
        """The chunks."""
        self._plan()
        return self._parts

    def __call__(self, vector: Tensor) -> Tensor:
        self._plan()
        vectors = shaped(vector, self.objective.parameters)
        total = torch.zeros_like(vector)
        sums = shaped(total, self.objective.parameters)
        for i, rows in enumerate(self._parts):
            with allowed(), _faults(self.objective, self.matrix, rows):
                for sum_, part in zip(sums, self._product(i)(vectors), strict=True):
                    sum_ += part
        return total

    def by_sample(self, vectors: Tensor, rows: slice) -> Tensor:
        """(samples, k): what each of some samples adds to vᵀ C v, times n, for each row of ``vectors``.

        That is vᵀ ∇²ℓᵢ v, where samples count alike. The Hessian's are third derivatives: some four times a product each.
        """
        pieces = [shaped(vector, self.objective.parameters) for vector in vectors]
        with allowed(), _faults(self.objective, self.matrix, rows):
            forms = self._forms(rows)
            found = torch.stack([forms(v).detach().double().cpu() for v in pieces], 1)
        weights = self.objective.weights
        return found * (len(weights) * weights[rows] / weights.sum())[:, None]

    def _forms(self, rows: slice) -> Forms:
        objective, parameters = self.objective, self.objective.parameters
        with objective.differentiated(), sdpa_kernel(SDPBackend.MATH):
            outputs = objective.outputs(rows)
            if self.matrix == "ggn":
                return gauss_newton_forms(outputs, lambda z: objective.losses(z, rows), parameters)
            losses = objective.losses(outputs, rows)
            if self.matrix == "hessian":
                return hessian_forms(losses, parameters)
            tangent, weights = Tangent(losses, parameters), objective.weights[rows].to(losses)
            return lambda vectors: weights * tangent.push(vectors) ** 2

    def _product(self, i: int) -> Product:
        if self._kept is None:
            return self._made(self._parts[i])
        if i == len(self._kept):
            self._kept.append(self._made(self._parts[i]))
        return self._kept[i]

    def _made(self, rows: slice) -> Product:
        """The product with the part of C that is of some samples."""
        objective, parameters = self.objective, self.objective.parameters
        with objective.differentiated(), sdpa_kernel(SDPBackend.MATH):
            outputs = objective.outputs(rows)
            if self.matrix == "hessian":
                return hessian_product(objective.loss(outputs, rows), parameters)
            if self.matrix == "ggn":
                objective.loss(outputs, rows)  # says what is wrong with it, if anything is
                return gauss_newton_product(outputs, lambda z: objective.loss(z, rows), parameters)
            losses = objective.losses(outputs, rows)
            return fisher_product(losses, self._fisher_weights(rows, losses), parameters)

    def _fisher_weights(self, rows: slice, like: Tensor) -> Tensor:
        """So that gᵢ is of the mean loss, or with the losses summed of the summed one."""
        return self.objective.shares(rows, like) * self.objective.weights[rows].to(like)

    def _bytes(self, few: slice) -> float:
        try:
            return _bytes(lambda: self._made(few), self.objective.parameters)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):  # a model with torch.func inside
                raise
            return 4.0 * few.stop * bytes_per_sample(self.objective.samples, self.objective.scope.anatomy)

    def _plan(self) -> None:
        """How many samples go at a time, and whether the graphs of all can be kept: by the bytes of a trial with few."""
        if self._parts:
            return
        n, memory = len(self.objective.samples), current().memory
        few = slice(0, min(FEW, n))
        self.objective.check_apart(few)
        with _faults(self.objective, self.matrix, few):
            self._each = self._bytes(few) / few.stop
        fitting = memory
        if self.device.type == "cpu":
            fitting = min(memory, max(CACHED, LARGE * self.size * self.dtype.itemsize))
        most = max(1, int(fitting // max(1.0, self._each)))
        usual = min(usual_chunk(self.objective.samples, self.objective.scope.anatomy), most)
        self._parts = self.objective.parts(usual if self._asked is None else self._asked)
        self._kept = [] if self._each * n <= memory else None


def _bytes(make: Callable[[], object], parameters: Sequence[Parameter]) -> float:
    """What is kept for the backwards of what ``make`` makes, the parameters themselves left out."""
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        made = make()
    own = {p.untyped_storage().data_ptr() for p in parameters}
    found = float(sum(size for at, size in storages.items() if at not in own))
    del made
    return found


@contextmanager
def _faults(objective: Objective, matrix: Matrix, rows: slice) -> Iterator[None]:
    """What torch says, in one line that says what to do. A product that failed is never a vector."""
    try:
        yield
    except (RuntimeError, NotImplementedError, MemoryError) as error:
        said = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said or "not enough memory" in said:
            raise MemoryError(
                f"out of memory in a product with the {matrix} ({objective.size:,} weights, {rows.stop - rows.start} samples at "
                "a time): give a smaller chunk=, shorter samples, or fewer modules="
            ) from error
        if "SparseTensorImpl" in said:
            raise UnsupportedModel(
                f"{objective.scope.name} has an embedding whose gradients are sparse, and products are dense: build it with "
                "sparse=False"
            ) from error
        if "modified by an inplace operation" in said:
            raise UnsupportedModel(
                f"{objective.scope.name} writes into a tensor, such as a buffer, that its own derivative needs: its "
                "products would be of other values than its loss; write into a copy"
            ) from error
        if any(words in said for words in ONCE):
            raise UnsupportedModel(
                f"no second derivative: a part of {objective.scope.name} can be differentiated once only "
                f"({said.splitlines()[0]}); if it is its attention, load it with attn_implementation='eager'"
            ) from error
        raise
