"""``tensorscope perturb``: changes listed weights of some modules, beside controls, and measures what the loss does."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.experiment import FORMAT, MANIFEST, side, versions
from tensorscope_nb.cli.findings import effects, runs
from tensorscope_nb.cli.model import add_model, loaded, said_of_model
from tensorscope_nb.cli.options import CONTROLS, METHODS, RATIOS, add_reading, add_running, ratio, whole
from tensorscope_nb.cli.report import effects_in_short
from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.split import Reading, in_random_order
from tensorscope_nb.cli.texts import Text, TextFile, read_texts
from tensorscope_nb.cli.usage import UseError

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope.perplexity import Perplexity

SUMMARY = "targeted_summary.json"
VARIABLE = "TARGET_LAYER"
ROUNDING = 1e-5  # relative: what other kernels and devices may change of a loss in single precision
WORDS = """\
Changes the listed weights that are in some modules, and measures the loss on texts that the list was not made with, beside
matched random weights and the least critical ones. What is not given is taken from manifest.json beside the list."""


def add(commands: Any) -> None:
    parser = commands.add_parser("perturb", help="change the listed weights of some modules", description=WORDS)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--weights", required=True, metavar="CSV", help="a list such as out/top_100_weights_grad_x_weight.csv")
    parser.add_argument(
        "--module", nargs="+", action="extend", metavar="NAME",
        help=f"modules or parameters, or globs of them; each is a run of its own (default: those in ${VARIABLE}, parted by "
        "commas; else the whole list)",
    )  # fmt: skip
    add_model(parser, required=False, default=" (default: the model that the list was made with)")
    add_reading(parser, required=False)
    parser.add_argument("--eval-limit", type=whole(2), metavar="N", help="texts to measure with (default: as many as then)")
    parser.add_argument("--method", choices=METHODS, default="zero", help="how they are changed (default: zero)")
    parser.add_argument(
        "--ratios", nargs="+", type=ratio, default=list(RATIOS), metavar="R",
        help=f"shares of the list that are changed (default: {' '.join(map('{:g}'.format, RATIOS))})",
    )  # fmt: skip
    parser.add_argument(
        "--controls", nargs="*", choices=CONTROLS, default=list(CONTROLS), metavar="CONTROL",
        help=f"any of {', '.join(CONTROLS)}, or none (default: {' '.join(CONTROLS)})",
    )  # fmt: skip
    add_running(parser, seed=None)
    parser.add_argument("--out", "--output", metavar="FOLDER", help="default: perturb_MODULE beside the list")


def run(given: argparse.Namespace, command: list[str]) -> int:
    path = Path(given.weights).expanduser()
    if not path.is_file():
        raise UseError(f"there is no list {given.weights}: give a top_….csv of tensorscope critical-weights")
    before = Before.beside(path)
    modules = given.module or _from_environment() or [None]
    if given.model is None and before is None:
        raise UseError(f"there is no {MANIFEST} beside {given.weights}, so what the list is of is not known: give --model")
    file = _file(given, before)
    folder = Path(given.out).expanduser() if given.out else path.with_name(f"perturb_{_called(modules)}")
    with Session(folder, SUMMARY, "targeted_analysis.log", overwrite=given.overwrite, command=command) as session:
        lines = Targeted(given, session, path, before, file).measured(modules)
    sys.stdout.write("\n".join([*lines, f"files: {folder}"]) + "\n")
    return 0


@dataclass(frozen=True)
class Before:
    """What the manifest beside a list says: how the list came to be."""

    path: Path
    model: dict[str, Any]
    data: dict[str, Any]
    calibration: dict[str, Any]
    evaluation: dict[str, Any]
    seed: int
    versions: dict[str, str]

    @classmethod
    def beside(cls, weights: Path) -> Before | None:
        path = weights.with_name(MANIFEST)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            said = {field.name: found[field.name] for field in fields(cls) if field.name != "path"}
            if found["format"] != FORMAT:
                raise LookupError
        except (ValueError, LookupError, TypeError):
            raise UseError(f"{path} is damaged, or of another program: move it away, and give --model and --data-file") from None
        return cls(path, **said)

    def read(self, given: str) -> TextFile:
        """The texts of a file, as those of its own were read."""
        return read_texts(given, paragraphs=self.data["paragraphs"], field=self.data["text_field"])

    def has_read(self, file: TextFile) -> bool:
        return file.sha256 == self.data["sha256"]


def _file(given: argparse.Namespace, before: Before | None) -> TextFile:
    """The file that is given, read as then where it is the same; else that of the manifest, which must be as it was."""
    if given.data_file is not None:
        file = read_texts(given.data_file, paragraphs=given.paragraphs, field=given.text_field)
        return before.read(given.data_file) if before is not None and before.has_read(file) else file
    if before is None:
        raise UseError(f"there is no {MANIFEST} beside {given.weights}, so its texts are not known: give --data-file")
    path = before.data["path"]
    if not Path(path).expanduser().is_file():
        raise UseError(f"there is no {path}, the data file that {before.path} names: give --data-file, or go where it is")
    file = before.read(path)
    if not before.has_read(file):
        raise UseError(
            f"{path} is not what it was when the list was made (its sha256 differs from that in {before.path}): put it back, or "
            "give --data-file to measure with other texts"
        )
    return file


def _from_environment() -> list[str] | None:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()] or None


def _called(modules: Sequence[str | None]) -> str:
    named = "_and_".join(module or "all" for module in modules)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", named) if len(named) <= 100 else f"{len(modules)}_modules"


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
            found = {module: self._perturbed(evaluation, module, controls) for module in modules}
        rows = [row for module, result in found.items() for row in runs(result, **self._of(module, counts))]
        session.write_table("targeted_results.csv", pd.DataFrame(rows).assign(eval_texts_count=len(evaluation)))
        session.finish(self._summary(evaluation, baseline, compared, found, counts, controls))
        return [f"{module or 'the whole list'}: {effects_in_short(effects(result))}" for module, result in found.items()]

    def _of(self, module: str | None, counts: dict[str | None, int]) -> dict[str, Any]:
        return {"module": module or "all", "listed_in_module": counts[module], "method": self.given.method}

    def _perturbed(self, evaluation: Samples, module: str | None, controls: list[str]) -> xr.Dataset:
        from tensorscope_nb.recipes import perturbation

        given = self.given
        self.session.say(f"changing the listed weights of {module or 'all modules'}: {given.method}")
        return perturbation(
            self.scope, evaluation, self.path, method=given.method, modules=module, ratios=given.ratios, controls=controls,
            n_seeds=given.n_seeds,
        )  # fmt: skip

    def _texts(self) -> list[Text]:
        """Those that were measured with then; of another file some that the list was not made with."""
        before, limit = self.before, self.given.eval_limit
        if before is not None and before.has_read(self.file):
            texts = self.file.at(before.evaluation["places"])
            ranked = self.file.at(before.calibration["places"])
            if self.reading.max_length == before.data["max_length"]:
                ranked = []  # they were parted then
            texts = list(self.reading.distinct(texts, without=ranked))
        else:
            ranked = self._ranked_with()
            texts = list(self.reading.distinct(in_random_order(self.file.texts, self.seed), without=ranked))
            limit = limit or (before.evaluation["n_texts"] if before is not None else 100)
        if len(texts) < 2:
            raise UseError(f"{self.file.path} holds {len(texts)} texts that the list was not made with: give at least 2")
        if limit and len(texts) < limit:
            self.session.say(f"{len(texts)} texts to measure with ({limit} were asked for: there are no more)")
        return texts[:limit]

    def _ranked_with(self) -> list[Text]:
        """The texts that the list was made with, where they are still there."""
        before = self.before
        if before is not None:
            try:
                file = before.read(before.data["path"])
            except UseError:
                file = None
            if file is not None and before.has_read(file):
                return file.at(before.calibration["places"])
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
        self, evaluation: Samples, baseline: Perplexity, compared: dict[str, Any], found: dict[str | None, xr.Dataset],
        counts: dict[str | None, int], controls: list[str],
    ) -> dict[str, Any]:  # fmt: skip
        from tensorscope_nb.study.metadata import metadata

        given = self.given
        said = metadata(next(iter(found.values())))
        return {
            "command": self.session.command,
            "model": self.scope.name,
            "weights": said["weights"],
            "list": given.weights,
            "data": {"path": self.file.path, "sha256": self.file.sha256, "max_length": self.reading.max_length},
            "evaluation": side(self.scope, evaluation),
            "eval_texts_count": len(evaluation),
            "baseline": vars(baseline),
            "baseline_check": compared,
            "method": given.method,
            "controls": controls,
            "n_seeds": given.n_seeds,
            "seed": self.seed,
            "modules": {
                module or "all": {
                    "n_listed": counts[module], "effects": effects(result), "notes": metadata(result).get("notes", []),
                }
                for module, result in found.items()
            },
            "versions": versions(),
        }  # fmt: skip
