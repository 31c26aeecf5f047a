"""Study: runs recipes over one model, along its checkpoints, or over several models, under the same conditions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from tensorscope_nb.models import Checkpoints
from tensorscope_nb.recipes.recipe import Recipe
from tensorscope_nb.scope import Scope
from tensorscope_nb.study.calls import by_subject
from tensorscope_nb.study.contributions import Contributions
from tensorscope_nb.study.correlations import Method, correlations
from tensorscope_nb.study.frame import frame
from tensorscope_nb.study.members import Members
from tensorscope_nb.study.plan import plan
from tensorscope_nb.study.report import write_report
from tensorscope_nb.study.run import check_across, check_along, check_given, run_across, run_along, run_recipes
from tensorscope_nb.study.store import load_results, save_results
from tensorscope_nb.study.viewers import Viewers

if TYPE_CHECKING:
    import pandas as pd

    from tensorscope_nb.views import View


class Study:
    """Recipes over the same model and samples; a checkpoint history or ``{name: scope}`` adds a leading dimension.

    Recipes that read gradients of the same samples share one sweep.

    >>> import tensorscope_nb as ts
    >>> study = ts.Study(ts.checkpoints("tiny")).run(ts.recipes.induction_heads.using(n_sequences=2))
    >>> study["induction_heads"]["prefix_matching"].dims
    ('checkpoint', 'layer', 'head')
    """

    def __init__(self, scope: Scope | Checkpoints | Mapping[str, Scope], samples: Any = None) -> None:
        if not isinstance(scope, Scope | Checkpoints | Mapping):
            raise TypeError(
                f"a Study takes a Scope, ts.checkpoints(...) or a mapping of names to Scopes, not a {type(scope).__name__}"
            )
        if not isinstance(scope, Scope) and not len(scope):
            raise ValueError("a Study of no models: give at least one")
        self._subject: Scope | Checkpoints | Mapping[str, Scope] | None = scope
        self.samples = samples
        self._results: dict[str, xr.Dataset] = {}
        self._audience = Viewers()

    def run(self, *recipes: Recipe, executor: Executor | None = None) -> Study:
        """Runs the recipes on every model of the study; an earlier result of the same name is replaced.

        Views of the study fill in while it runs. An interrupt is raised, and leaves what there is: results of the samples
        (or models) that were done, marked ``partial`` in their metadata. ``executor=`` spreads the work over processes.
        A recipe that follows all checkpoints of a history, such as ``tracin``, brings samples of its own:
        ``ts.recipes.tracin.using(train=…, test=…)``. One that compares models, ``compare_models``, takes all at once.
        """
        self._check(recipes)
        members, (each, along, across) = self._members(), by_subject(recipes)
        with self._audience.running(self._results):
            if each:
                run_recipes(members, self.samples, each, executor, self._audience, self._keep)
            run_along(members, along, executor, self._audience, self._keep)
            run_across(members, self.samples, across, self._audience, self._keep)
        return self

    def plan(self, *recipes: Recipe) -> pd.DataFrame:
        """What a run will take, by sweep: passes over the samples, bytes, and about how many seconds.

        The seconds are measured on a few samples; further models of the study cost the same again, and are counted.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> study = ts.Study(scope, ts.datasets.shakespeare(scope, n=32))
        >>> plan = study.plan(ts.recipes.gradient_health, ts.recipes.grouped_fisher)
        >>> plan["recipes"].tolist(), plan["passes"].tolist()
        (['gradient_health, grouped_fisher'], [1.0])
        """
        self._check(recipes)
        return plan(self._members(), self.samples, recipes)

    def _check(self, recipes: Sequence[Recipe]) -> None:
        for recipe in recipes:
            if not isinstance(recipe, Recipe):
                raise TypeError(f"a Study runs recipes, such as ts.recipes.induction_heads, not a {type(recipe).__name__}")
        names = [recipe.name for recipe in recipes]
        if not names:
            raise ValueError("no recipes: name at least one, such as ts.recipes.gradient_health")
        if len(set(names)) < len(names):
            raise ValueError(f"two recipes are named {max(names, key=names.count)!r}: tell them apart with .using(name=…)")
        members = self._members()
        for recipe in recipes:
            if recipe.takes_history:
                check_along(members, recipe)
            elif recipe.takes_models:
                check_across(members, self.samples, recipe)
            else:
                check_given(recipe, self.samples)

    def _keep(self, results: dict[str, xr.Dataset]) -> None:
        self._results |= results

    def _members(self) -> Members:
        if self._subject is None:
            raise ValueError("this study was opened from a folder and holds results only: make a Study of a model to run more")
        return Members.of(self._subject)

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self._results:
            raise LookupError(f"the study holds no {name!r}: it holds {', '.join(self._results) or 'nothing yet, run a recipe'}")
        return self._results[name]

    def __contains__(self, name: object) -> bool:
        return name in self._results

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def frame(self, *dims: str) -> pd.DataFrame:
        """One row per place on ``dims``, one column per variable that lives there, from every result.

        A variable with further dimensions is averaged over them, and one on modules is averaged by their layer; the name of
        the column says so.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> study = ts.Study(scope, ts.datasets.shakespeare(scope, n=8)).run(ts.recipes.gradient_health)
        >>> study.frame("layer")["backward_rms"].shape
        (2,)
        """
        return frame(self._results, dims)

    def correlations(
        self, *dims: str, method: Method = "spearman", variables: Sequence[str] | None = None, trim: int = 0
    ) -> pd.DataFrame:
        """One row per pair of variables that live on ``dims``: how they go together over the parts of the model.

        What it answers: whether two measures agree on which layers, heads or modules stand out, beyond what depth, size and
        kind explain for both, and whether chance could do that. Parts of one model are not independent, so the plain p value
        of a rank correlation is worthless there. Equation: ``rho`` is Spearman's of the columns of :meth:`frame`
        (``method="pearson"``: of values, without p). ``rho_detrended`` is the correlation of what is left of the ranks,

        - ``("layer")``: without a quadratic in depth; n_eff = L (1 − αβ) / (1 + αβ) − 2 by the lag-1 autocorrelations α, β;
        - ``("layer", "head")``: without the means of the layers; n_eff by the variance of r when heads are exchanged within
          their layers, and less where heads that share keys and values are alike;
        - ``("module")``: ranks within each kind of module (q_proj, down_proj, a norm …), without each kind's quadratic in
          depth, the means of the layers, and size where it varies within a kind; n_eff by the variance of r when kinds
          exchange their profiles along depth, and layers theirs. Only modules in layers enter.

        ``p`` is by Student's t with n_eff − 2 degrees of freedom; ``q`` is Benjamini and Hochberg's, over the pairs that have
        a p and are not coupled. Simulated sizes at .05 under autocorrelation, trends, effects of layer and kind, and heavy
        tails: layers .02–.06, heads .03–.06, modules .00–.06; at .01 at most .02 (Spearman's own p there: up to 1). Powers at
        .8: 12 layers .66, 24 layers .94; 2 × 4 heads .37, 2 × 8 heads .81; 4 kinds × 8 layers .68, 6 × 8 .96. Source:
        Bartlett 1935 for n_eff of series; Pitman 1937 for the variance under exchange.

        Result: ``a, b, rho, rho_detrended, n`` (places where both are defined)``, n_eff, p, q, coupled, n_members,
        n_same_sign, note``. ``coupled`` pairs are of one result, or their recipes read the same ingredients (``needs``): their
        p answers no open question, and q leaves them out; NA where a result does not say (its q is left out too). In a study
        of checkpoints the numbers are the last one's; in one of models they are medians, and p is M / k times the k-th
        smallest of the M models', k more than half (Rüger 1978: valid however alike the models are). ``n_same_sign`` counts
        the ``n_members`` that have the sign of ``rho_detrended`` (of rho where there is none). ``note`` says why a number is
        missing. Left out unless ``variables=`` names them (by variable, column or ``result.variable``): intervals, nulls and
        p values, yes or no, sizes, and values by sample. ``trim`` leaves out that many layers at either end.

        Errors: ValueError for other dimensions, fewer than two variables, one layer; LookupError for what is not there.
        How to read it: a small q with n_same_sign = n_members over seeds. When not to trust it: where both follow the same
        steep curve in depth that is no quadratic (size .07–.11); a model of one layer whose heads share keys (.10); and
        association is not cause: see ``ablation``.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> study = ts.Study(scope, ts.datasets.shakespeare(scope, n=8))
        >>> study = study.run(ts.recipes.grouped_fisher.using(granularity="head"), ts.recipes.ablation)
        >>> pairs = study.correlations("layer", "head", variables=["importance", "loss_increase"])
        >>> pairs[["a", "b", "n", "coupled"]].values.tolist()
        [['importance (mean over block)', 'loss_increase', 8, False]]
        """
        return correlations(self._results, dims, method, variables, trim)

    @property
    def contributions(self) -> Contributions:
        """Squared per-sample gradients, computed on sight: ``[task][id][parameter]``, ``.fisher(task, parameter)``."""
        if not isinstance(self._subject, Scope) or self.samples is None:
            raise ValueError("contributions are of one model and its samples: make ts.Study(scope, samples)")
        return Contributions(self._subject, self._subject.samples(self.samples))

    def report(self, path: str | Path) -> Path:
        """Writes what the study holds: ``.md`` to read (ranges of every variable), ``.html`` with the linked views as well,
        ``.json`` with all numbers."""
        return write_report(self._results, Path(path))

    def view(self, *recipes: Recipe) -> View:
        """The linked dashboard for what the study holds; it follows what is run later.

        With ``recipes`` it has a button that runs them, and one that stops them.
        """
        if self._subject is None and not recipes:
            from tensorscope_nb.views import view

            return view(self)
        self._members()
        if recipes:
            self._check(recipes)
        return self._audience.view(self._results, (lambda: self.run(*recipes)) if recipes else None)

    def save(self, folder: str | Path) -> Path:
        """Writes each result as netCDF and a manifest; what was saved before is replaced only by what is complete."""
        return save_results(self._results, Path(folder))

    @classmethod
    def open(cls, folder: str | Path, *, without: Collection[str] = ()) -> Study:
        """The results that :meth:`save` wrote, but for those named in ``without``; only a Study of a model runs more."""
        study = cls.__new__(cls)
        study._subject, study.samples, study._results = None, None, load_results(Path(folder), without)
        study._audience = Viewers()
        return study

    def __repr__(self) -> str:
        subject = "results only" if self._subject is None else repr(self._subject)
        return f"Study({subject}; {', '.join(self._results) or 'no results yet'})"
