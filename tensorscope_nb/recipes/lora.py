"""Where to put LoRA: the modules with the most Fisher information, and controls of the same number of adapter parameters."""

from __future__ import annotations

import json
import operator
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.recipes.lora_budget import lowest_near, random_near
from tensorscope_nb.recipes.lora_eligible import eligible, twins_of
from tensorscope_nb.recipes.modules import block_of, layer_of
from tensorscope_nb.recipes.recipe import recipe

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

Score = Literal["mean", "total", "per_parameter"]
SCORES = ("mean", "total", "per_parameter")
FAR = 0.1  # a control whose budget is further off than this is no fair one


class LoraTargets(list[str]):
    """Module paths for ``peft.LoraConfig(target_modules=…)``, with the ranking that they were chosen from.

    ``r`` is the rank that is meant, ``score`` what the ranking is by, ``attrs["tensorscope"]`` how it was found.
    """

    def __init__(
        self, modules: Iterable[str], ranking: pd.DataFrame, score: str, r: int, twins: dict[str, list[str]], **metadata: Any
    ) -> None:
        super().__init__(modules)
        self._ranking = ranking
        self._twins = twins
        self.score = score
        self.r = _rank(r)
        self.attrs = {"tensorscope": json.dumps(metadata)}
        for module in self:
            if module in twins:
                also = ", ".join(repr(m) for m in twins[module])
                raise ValueError(
                    f"peft would match {module!r} to {also} too, by the end of the path: wrap the model in a module whose "
                    "paths are longer, or give peft one regular expression as target_modules"
                )

    def trainable(self, r: int | None = None) -> int:
        """How many parameters LoRA of rank ``r`` (default: ``.r``) trains here: Σ r (a + b), for A (r × a) and B (b × r)."""
        return _rank(self.r if r is None else r) * self._width()

    @property
    def table(self) -> pd.DataFrame:
        """All eligible modules in rank order: layer, block, sizes, score and importance with their intervals, ``chosen``.

        ``adapter_parameters`` are those of rank ``.r``. ``overlaps_cut`` says of a chosen module whether its interval
        reaches that of the first one not chosen, and of the others whether theirs reaches that of the last one chosen; it is
        missing where there is no interval or no cut (a control, or all modules chosen).
        """
        table = self._ranking.copy()
        table.insert(4, "adapter_parameters", self.r * (table["inputs"] + table["outputs"]))
        table["chosen"] = table.index.isin(self)
        overlaps = pd.Series(pd.NA, index=table.index, dtype="boolean")
        n = len(self)
        if 0 < n < len(table) and list(table.index[:n]) == list(self):
            low, high = table["score_ci_low"].to_numpy(), table["score_ci_high"].to_numpy()
            overlaps[:n] = low[:n] <= high[n]
            overlaps[n:] = high[n:] >= low[n - 1]
            overlaps[np.isnan(low) | np.isnan(np.where(table["chosen"], low[n], low[n - 1]))] = pd.NA
        table["overlaps_cut"] = overlaps
        return table

    @property
    def cut_overlaps(self) -> bool | None:
        """Whether the intervals of the last module chosen and the first not chosen overlap; None where that is not known.

        Where they do, these samples do not tell the two apart by their intervals: another draw could choose otherwise.
        """
        found = self.table["overlaps_cut"].iloc[len(self) - 1] if self else pd.NA
        return None if pd.isna(found) else bool(found)

    def random(self, r: int | None = None, seed: int = 0) -> LoraTargets:
        """Random eligible modules at this list's number of adapter parameters; they may share some with it.

        Of 1,000 random orders, each cut where its number is nearest to this list's, the first that is nearest, and never
        this very list. Where only modules of the same shapes add up to it, all are of those shapes: the control then says
        which of them, not which kind. ``r`` is the rank of the new list, and changes nothing of the choice.
        """
        widths = self._widths()
        self._require_others()
        own = {self._ranking.index.get_loc(m) for m in self}
        return self._control(random_near(widths, self._width(), seed, own), r, control="random", seed=seed)

    def bottom(self, r: int | None = None) -> LoraTargets:
        """The lowest eligible modules outside this list, at its number of adapter parameters.

        Of all sets whose number is nearest to this list's, that with the lowest score, averaged over adapter parameters.
        ``r`` as in :meth:`random`.
        """
        self._require_others()
        left = np.flatnonzero(~self._ranking.index.isin(self))
        scores = self._ranking["score"].to_numpy()[left]
        return self._control(left[lowest_near(self._widths()[left], scores, self._width())], r, control="bottom")

    def _control(self, places: np.ndarray, r: int | None, **words: Any) -> LoraTargets:
        metadata = json.loads(self.attrs["tensorscope"]) | words
        modules = self._ranking.index[np.sort(places)]
        made = LoraTargets(modules, self._ranking, self.score, self.r if r is None else r, self._twins, **metadata)
        own, there = self.trainable(), made.trainable(self.r)
        if abs(there - own) > FAR * own:
            warnings.warn(
                f"no {words['control']} set of modules comes nearer to {own:,} adapter parameters than {there:,}: "
                "choose another n for a fair comparison",
                stacklevel=3,
            )
        return made

    def _require_others(self) -> None:
        if not self:
            raise ValueError("this list is empty: there is nothing to compare with")
        if len(set(self)) >= len(self._ranking):
            raise ValueError(f"all {len(self)} eligible modules are chosen: there is nothing left to compare with, choose fewer")

    def _widths(self) -> np.ndarray:
        """a + b of every eligible module."""
        return (self._ranking["inputs"] + self._ranking["outputs"]).to_numpy()

    def _width(self) -> int:
        return int(self._widths()[self._ranking.index.get_indexer(self)].sum())

    def __repr__(self) -> str:
        noise = "; the intervals of the last one chosen and the first not chosen overlap" if self.cut_overlaps else ""
        return f"LoraTargets({list(self)!r}: {self.trainable():,} parameters at rank {self.r}{noise})"


@recipe(
    question="Which modules should LoRA adapt?", source="Hu et al. 2021, arXiv:2106.09685; the ranking is of no paper", needs=()
)
def lora_targets(scope: Scope, fisher: xr.Dataset, *, n: int = 4, score: Score = "mean", r: int = 8) -> LoraTargets:
    """The ``n`` modules to which LoRA adapters are added first, by the Fisher mass that ``grouped_fisher`` found in them.

    What it answers: which linear maps the loss on these samples depends on most, as a list for ``peft.LoraConfig``.
    Equation: LoRA adds B A to a weight of a inputs and b outputs, A (r × a) and B (b × r), and trains r (a + b) parameters.
    With q the module's mass (weight and bias) and N its number of weights, ``score="mean"`` ranks by q / N, ``"total"`` by
    q, ``"per_parameter"`` by q / (r (a + b)). Only the ``Linear`` and ``Conv1D`` modules of the layers are ranked (in an
    MLP or CNN each ``Linear``; where the layers are not known, all but the unembedding; no norm, no embedding, and not the
    output of a ``MultiheadAttention``, which never calls it), and then the first n taken. Ties go by the order of the model.
    Source: Hu et al. 2021 for LoRA, who compare kinds of weights at equal budget; ranking modules by their Fisher mass is a
    heuristic that no paper vouches for.

    Result: a ``list`` of full module paths (peft matches by the end of a path: each matches one module), with ``.table`` (a
    frame of all eligible modules, the intervals over samples, and what is within them of the cut), ``.cut_overlaps``,
    ``.trainable(r)``, and the controls ``.random(seed=…)`` and ``.bottom()`` of the same number of adapter parameters.
    Errors: UnsupportedModel where no module is eligible; ValueError for a Fisher that is not by module, that is not finite,
    or that leaves fewer than n; for a path that peft would match twice; for a model that already carries adapters
    (``get_peft_model`` changes the model in place: give it a copy). Cost: none beyond that of ``grouped_fisher``.
    How to read it: as a hypothesis. Where ``cut_overlaps``, another draw of samples might cut elsewhere (the intervals are
    of each module alone: overlap does not say that two are equal). When not to trust it: large gradients at the start say
    where a small step helps, not where training ends. Train the controls beside it before you claim anything.

    For GPT-2 set ``fan_in_fan_out=True`` in the ``LoraConfig``, or peft says that it does.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> fisher = ts.recipes.grouped_fisher(scope, ts.datasets.maths(scope, n=16))
    >>> targets = ts.recipes.lora_targets(scope, fisher, n=2)
    >>> list(targets)
    ['transformer.h.0.attn.c_proj', 'transformer.h.0.mlp.c_proj']
    >>> targets.trainable(r=8), targets.bottom().trainable(r=8)
    (3840, 3840)
    """
    if score not in SCORES:
        raise ValueError(f"score is {score!r}: choose among {', '.join(SCORES)}")
    if (n := operator.index(n)) < 1:
        raise ValueError(f"n is {n}: ask for at least 1 module")
    ranking = _ranking(scope, fisher, score, _rank(r))
    if n > len(ranking):
        raise ValueError(f"n is {n} and {len(ranking)} eligible modules have a Fisher mass: ask for at most {len(ranking)}")
    names = list(ranking.index[:n])
    return LoraTargets(
        names, ranking, score, r, twins_of(scope.model, ranking.index), fisher=json.loads(fisher.attrs.get("tensorscope", "{}"))
    )


def _ranking(scope: Scope, fisher: Any, score: str, r: int) -> pd.DataFrame:
    """The eligible modules of ``fisher`` by descending score."""
    sizes = eligible(scope)
    found = _by_module(fisher)
    known = {name for name, _ in scope.model.named_modules()}
    if unknown := [m for m in found["module"].values if m not in known]:
        raise ValueError(f"{scope.name} has no module {unknown[0]!r}: give the grouped_fisher of this model")
    names = [m for m in found["module"].values if m in sizes]
    if not names:
        raise UnsupportedModel(f"{scope.name} has no Linear or Conv1D with a Fisher mass in its layers for LoRA to adapt")
    table = found.sel(module=names).to_dataframe()[["importance", "ci_low", "ci_high", "n_parameters"]]
    if len(bad := table.index[~np.isfinite(table["importance"])]):
        raise ValueError(f"the importance of {bad[0]} is {table['importance'][bad[0]]}: there is no ranking with it")
    inputs, outputs = np.array([sizes[name] for name in names]).T
    over: Any = {"mean": table["n_parameters"], "total": 1, "per_parameter": r * (inputs + outputs)}[score]
    ranking = pd.DataFrame(
        {
            "layer": [layer_of(scope, name) for name in names],
            "block": [block_of(scope, name) for name in names],
            "inputs": inputs,
            "outputs": outputs,
            "score": table["importance"] / over,
            "score_ci_low": table["ci_low"] / over,
            "score_ci_high": table["ci_high"] / over,
        },
        index=pd.Index(names, name="module"),
    ).join(table)
    return ranking.sort_values("score", ascending=False, kind="stable")


def _by_module(fisher: Any) -> Any:
    import xarray as xr

    wanted = "lora_targets takes the Dataset of grouped_fisher(scope, samples), by module"
    if not isinstance(fisher, xr.Dataset):
        raise TypeError(f"fisher is a {type(fisher).__name__}: {wanted}")
    if missing := [v for v in ("importance", "ci_low", "ci_high", "n_parameters") if v not in fisher]:
        raise ValueError(f"fisher has no {missing[0]}: {wanted}")
    dims = [str(d) for d in fisher["importance"].dims]
    if "module" not in dims or "channel" in dims:
        raise ValueError(f"fisher is by {', '.join(dims) or 'nothing'}: {wanted}")
    if len(dims) > 1:
        other = next(d for d in dims if d != "module")
        raise ValueError(f"fisher has a {other} besides the module: choose one, fisher.sel({other}=…)")
    return fisher[["importance", "ci_low", "ci_high", "n_parameters"]]


def _rank(r: int) -> int:
    if (r := operator.index(r)) < 1:
        raise ValueError(f"r is {r}: the rank of an adapter is at least 1")
    return r
