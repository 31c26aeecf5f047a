"""Runs that change the listed weights of one module each, and what they found."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.before import Before
from tensorscope_nb.cli.controlled import controlled
from tensorscope_nb.cli.experiment import MANIFEST, side, versions
from tensorscope_nb.cli.findings import effects, runs
from tensorscope_nb.cli.model import loaded, said_of_model
from tensorscope_nb.cli.report import effects_in_short
from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.split import Reading, in_random_order
from tensorscope_nb.cli.texts import Text, TextFile
from tensorscope_nb.cli.usage import UseError

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope.perplexity import Perplexity

    Tested = tuple[xr.Dataset | None, list[str]]  # what was measured, and why not more

SUMMARY = "targeted_summary.json"
ROUNDING = 1e-5  # relative: what other kernels and devices may change of a loss in single precision


class Targeted:
    """The runs of one call of the command."""

    def __init__(self, given: argparse.Namespace, session: Session, path: Path, before: Before | None, file: TextFile) -> None:
        self.given, self.session, self.path, self.before, self.file = given, session, path, before, file
        session.say(f"loading {given.model or (before and before.model['asked']['model'])}")
        self.scope = loaded(**self._model())
        usual = before.data["max_length"] if before is not None else None
        self.reading = Reading(self.scope, file.path, given.max_length or usual, given.skip_short)
        self.seed = given.seed if given.seed is not None else before.seed if before is not None else 0

    def _model(self) -> dict[str, Any]:
        """What is given, and of what is not what the list was made with."""
        asked = said_of_model(self.given)
        if self.before is None or self.given.model is not None:
            return asked
        return self.before.model["asked"] | {name: value for name, value in asked.items() if value is not None}

    def measured(self, modules: Sequence[str | None]) -> list[str]:
        """Runs it all and writes it all; what was found, in a line for each module."""
        import pandas as pd

        from tensorscope_nb.recipes.weight_list import WeightList
        from tensorscope_nb.settings import GIGABYTE, options

        given, session = self.given, self.session
        listed = WeightList.read(self.scope, self.path)
        counts = {module: len(listed.inside(self.scope, module)) for module in modules}
        controls = [control for control in given.controls if control != "bottom" or listed.bottom is not None]
        if len(controls) < len(given.controls):
            session.say(f"there is no bottom list beside {given.weights}: without that control")
        texts = self._texts()
        evaluation = self.reading.samples(texts, "evaluation")
        with options(seed=self.seed, memory=given.memory * GIGABYTE, progress=sys.stderr.isatty()):
            baseline = self.scope.perplexity(evaluation)
            session.say(f"baseline: {baseline!r}")
            compared = self._compared(evaluation, baseline)
            session.say(compared["says"])
            tests = {module: self._tested(evaluation, module, controls) for module in modules}
        found = {module: result for module, (result, _) in tests.items() if result is not None}
        if not found:
            raise UseError("nothing could be measured: " + next(iter(tests.values()))[1][-1])
        rows = [row for module, result in found.items() for row in runs(result, **self._of(module, counts))]
        session.write_table("targeted_results.csv", pd.DataFrame(rows).assign(eval_texts_count=len(evaluation)))
        session.finish(self._summary(evaluation, baseline, compared, tests, counts, controls))
        return [
            f"{module or 'the whole list'}: {why[-1] if result is None else effects_in_short(effects(result))}"
            for module, (result, why) in tests.items()
        ]

    def _of(self, module: str | None, counts: dict[str | None, int]) -> dict[str, Any]:
        return {"module": module or "all", "listed_in_module": counts[module], "method": self.given.method}

    def _tested(self, evaluation: Samples, module: str | None, controls: list[str]) -> Tested:
        given = self.given
        self.session.say(f"changing the listed weights of {module or 'all modules'}: {given.method}")
        return controlled(
            self.session, self.scope, evaluation, self.path, controls, method=given.method, modules=module, ratios=given.ratios,
            n_seeds=given.n_seeds, second_order=not given.first_order,
        )  # fmt: skip

    def _texts(self) -> list[Text]:
        """Those that were measured with then; of another file some that the list was not made with."""
        before, limit = self.before, self.given.eval_limit
        if before is not None and self.file.sha256 == before.data["sha256"]:
            # where they are cut as they were then, the two sides are parted already
            cut_alike = self.reading.max_length == before.data["max_length"]
            ranked = [] if cut_alike else before.ranked_with(self.file)
            texts = list(self.reading.distinct(before.measured_with(self.file), without=ranked))
            why = "so many were kept for it when the list was made"
        else:
            why = "there are no more"
            limit = limit or (before.evaluation["n_texts"] if before is not None else 100)
            texts = list(self.reading.distinct(in_random_order(self.file.texts, self.seed), without=self._ranked_with()))
        if len(texts) < 2:
            raise UseError(f"{self.file.path} holds {len(texts)} texts that the list was not made with: give at least 2")
        if limit and len(texts) < limit:
            self.session.say(f"{len(texts)} texts to measure with ({limit} were asked for: {why})")
        return texts[:limit]

    def _ranked_with(self) -> list[Text]:
        """The texts that the list was made with, where they are still there."""
        try:
            if self.before is not None:
                return self.before.ranked_with(self.before.own_file())
        except UseError as error:
            self.session.log(str(error))
        self.session.say("the texts that the list was made with are not there: whether some of these are among them is not known")
        return []

    def _compared(self, evaluation: Samples, baseline: Perplexity) -> dict[str, Any]:
        """Whether the baseline is that of the manifest, where it must be: on the same texts with the same weights."""
        import torch

        from tensorscope_nb.recipes.recipe import weights_of

        before = self.before
        if before is None:
            return {"compared": False, "says": f"baselines are not compared: there is no {MANIFEST} beside the list"}
        for what, here, then in (
            ("texts", evaluation.fingerprint, before.evaluation["fingerprint"]),
            ("weights", weights_of(self.scope), before.model["weights"]),
        ):
            if here != then:
                says = f"baselines are not comparable: the {what} are other ones than in {before.path} ({here}, {then} there)"
                return {"compared": False, "says": says}
        dtype = next(self.scope.model.parameters()).dtype
        then = before.evaluation["baseline_loss"]
        if not math.isclose(baseline.nll, then, rel_tol=max(ROUNDING, torch.finfo(dtype).eps)):
            raise UseError(
                f"the baseline perplexity is {baseline.value:.6g}, and {before.path} says {math.exp(then):.6g} of the same texts "
                f"and weights: one of the two is wrong, and nothing was changed{self._other_versions()}"
            )
        return {"compared": True, "recorded_perplexity": math.exp(then), "says": "the baseline is that of the manifest"}

    def _other_versions(self) -> str:
        assert self.before is not None
        then = self.before.versions
        other = [f"{name} {then[name]}, here {here}" for name, here in versions().items() if then.get(name, here) != here]
        return f" (then {'; '.join(other)})" if other else ""

    def _summary(
        self, evaluation: Samples, baseline: Perplexity, compared: dict[str, Any], tests: dict[str | None, Tested],
        counts: dict[str | None, int], controls: list[str],
    ) -> dict[str, Any]:  # fmt: skip
        from tensorscope_nb.recipes.recipe import weights_of
        from tensorscope_nb.study.metadata import metadata

        given = self.given
        return {
            "command": self.session.command,
            "model": self.scope.name,
            "weights": weights_of(self.scope),
            "list": given.weights,
            "data": {"path": self.file.path, "sha256": self.file.sha256, "max_length": self.reading.max_length},
            "evaluation": side(self.scope, evaluation),
            "eval_texts_count": len(evaluation),
            "baseline": vars(baseline),
            "baseline_check": compared,
            "method": given.method,
            "controls": controls,
            "n_seeds": given.n_seeds,
            "predicted_by": "gradient" if given.first_order else "gradient and Hessian",
            "seed": self.seed,
            "modules": {
                module or "all": {
                    "n_listed": counts[module],
                    "effects": None if result is None else effects(result),
                    "notes": why + ([] if result is None else metadata(result).get("notes", [])),
                }
                for module, (result, why) in tests.items()
            },
            "versions": versions(),
        }  # fmt: skip
