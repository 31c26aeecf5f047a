"""The files of one ranking and its test: what was asked, what it was found on, and what was found."""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tensorscope_nb import __version__
from tensorscope_nb.cli.findings import Finding, effects, runs, statistics
from tensorscope_nb.cli.model import said_of_model
from tensorscope_nb.cli.report import report
from tensorscope_nb.cli.session import Session, now
from tensorscope_nb.cli.split import Reading
from tensorscope_nb.cli.texts import TextFile

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.scope.perplexity import Perplexity

SUMMARY = "experiment_summary.json"
MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Experiment:
    """A ranking of the weights on some texts, and its test on others."""

    given: argparse.Namespace
    scope: Scope
    file: TextFile
    reading: Reading
    calibration: Samples
    evaluation: Samples
    baseline: Perplexity
    findings: list[Finding]

    @property
    def in_short(self) -> str:
        return f"baseline {self.baseline!r}; {len(self.calibration)} texts to rank with, {len(self.evaluation)} others to measure"

    def write(self, session: Session) -> None:
        """All files; the summary last, so that a folder that has one is whole."""
        import pandas as pd

        from tensorscope_nb.recipes import weight_table

        asked = {name: value for name, value in vars(self.given).items() if name not in ("run", "parser", "command")}
        session.write_json("config.json", asked)
        rows: list[dict[str, Any]] = []
        for found in self.findings:
            session.write_table(f"{found.name}.csv", weight_table(found.critical))
            session.write_table(f"bottom_{found.name.removeprefix('top_')}.csv", weight_table(found.critical, bottom=True))
            session.write_result(f"critical_{found.name}.nc", found.critical)
            for method, result in found.perturbed.items():
                session.write_result(f"perturbation_{found.name}_{method}.nc", result)
                rows += runs(result, metric=found.metric, topk=found.top, method=method)
        counted: dict[str, dict[str, Any]] = {}
        for found in self.findings:
            counted.setdefault(found.metric, {})[f"top_{found.top}"] = statistics(found)
        session.write_json("sensitivity_statistics.json", counted)
        if rows:
            session.write_table("perturbation_results.csv", pd.DataFrame(rows).assign(eval_texts_count=len(self.evaluation)))
        session.write_json(MANIFEST, self._manifest(session))
        session.write("report.md", self._report())
        session.finish(self._summary())

    def _manifest(self, session: Session) -> dict[str, Any]:
        """What it takes to do the same again, and to tell whether another run did."""
        from tensorscope_nb.study.metadata import metadata

        said = metadata(self.findings[0].critical)
        model = self.scope.model
        return {
            "format": FORMAT,
            "command": session.command,
            "model": {
                "asked": said_of_model(self.given), "name": self.scope.name, "weights": said["weights"], "dtype": said["dtype"],
                "device": str(next(model.parameters()).device),
                "revision": getattr(getattr(model, "config", None), "_commit_hash", None),
            },
            "data": {
                "path": self.file.path, "sha256": self.file.sha256, "paragraphs": self.given.paragraphs,
                "text_field": self.given.text_field, "max_length": self.given.max_length, "skip_short": self.given.skip_short,
            },
            "calibration": side(self.scope, self.calibration),
            "evaluation": {
                **side(self.scope, self.evaluation),
                "baseline_perplexity": self.baseline.value, "baseline_loss": self.baseline.nll,
            },
            "seed": self.given.seed,
            "versions": versions(),
            "started": session.started,
            "finished": now(),
        }  # fmt: skip

    def _summary(self) -> dict[str, Any]:
        given, results = self.given, []
        for found in self.findings:
            results.append(
                {
                    "metric": found.metric, "topk": found.top, "modules": found.modules[:10],
                    "perturbation": dict.fromkeys(found.reasons) | {m: effects(result) for m, result in found.perturbed.items()},
                }
            )  # fmt: skip
        return {
            "experiment_id": given.experiment_id,
            "model": self.scope.name,
            "metrics": given.metric,
            "topk": given.top,
            "texts_in_file": len(self.file.texts),
            "calibration_texts": {"requested": given.calibration_limit or given.eval_limit, "used": len(self.calibration)},
            "evaluation_texts": {"requested": given.eval_limit, "used": len(self.evaluation)},
            "eval_texts_count": len(self.evaluation),
            "left_out": {"shorter_than_two_tokens": self.reading.n_short, "equal_to_another": self.reading.n_equal},
            "baseline": vars(self.baseline),
            "results": results,
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        from tensorscope_nb.study.metadata import metadata

        notes = []
        for found in self.findings:
            notes += [
                f"{found.metric}, top {found.top}, {method}: {why}" for method in found.reasons for why in found.reasons[method]
            ]
            for what, result in {"ranking": found.critical, **found.perturbed}.items():
                notes += [f"{found.metric}, top {found.top}, {what}: {note}" for note in metadata(result).get("notes", [])]
        return notes

    def _report(self) -> str:
        given = self.given
        asked = [
            ("Model", f"`{self.scope.name}`"),
            ("Texts", f"`{self.file.path}`, {self._texts()}"),
            ("Ranked by", f"{', '.join(given.metric)}; lists of {', '.join(map(str, given.top))}{self._where()}"),
            ("Changed", "nothing" if given.no_perturbation else f"{', '.join(given.method)}, {given.n_seeds} random controls"),
            ("Seed", str(given.seed)),
        ]
        return report(f"Critical weights of {self.scope.name}", asked, self.findings, repr(self.baseline), self._notes())

    def _texts(self) -> str:
        given, reading = self.given, self.reading
        wanted = (given.calibration_limit or given.eval_limit, given.eval_limit)
        sides = zip((self.calibration, self.evaluation), wanted, ("to rank with", "others to measure with"), strict=True)
        said = [f"{len(side)} {what}" + (f" ({n} asked for)" if len(side) < n else "") for side, n, what in sides]
        said += [f"{reading.n_short} too short"] if reading.n_short else []
        said += [f"{reading.n_equal} equal to another"] if reading.n_equal else []
        return ", ".join(said)

    def _where(self) -> str:
        given = self.given
        return (" for each layer" if given.per_layer else "") + (f" in {', '.join(given.modules)}" if given.modules else "")


def side(scope: Scope, samples: Samples) -> dict[str, Any]:
    """What is said of the texts of one side: which they are, and how much there is."""
    terms = scope.rule.n_terms(scope.rule.prepared(samples))
    return {
        "fingerprint": samples.fingerprint, "n_texts": len(samples), "n_tokens": int(samples.lengths.sum()),
        "n_predicted": int(terms.sum()), "places": [name.partition(", ")[2] for name in samples.ids],
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of what the numbers come from."""
    libraries = {name: version(name) for name in ("torch", "transformers", "numpy", "scipy", "xarray")}
    return {"tensorscope_nb": __version__, "python": platform.python_version()} | libraries
