"""``tensorscope critical-weights``: rank the weights on some texts, change them and measure on others, write it all down."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.controlled import controlled
from tensorscope_nb.cli.experiment import MANIFEST, SUMMARY, Experiment
from tensorscope_nb.cli.findings import Finding
from tensorscope_nb.cli.model import add_model, loaded, said_of_model
from tensorscope_nb.cli.options import CONTROLS, METHODS, METRICS, RATIOS, add_reading, add_running, ratio, whole
from tensorscope_nb.cli.report import in_short
from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.split import Reading, split
from tensorscope_nb.cli.texts import TextFile, read_texts
from tensorscope_nb.cli.usage import UseError

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

WORDS = """\
Ranks the weights of a model by how much the loss depends on them, on some texts of a file; changes the first of them, matched
random ones and the last of them, and measures the loss on other texts of the file. Read report.md in the folder first."""


def add(commands: Any) -> None:
    parser = commands.add_parser("critical-weights", help="rank single weights, and test the ranking", description=WORDS)
    parser.set_defaults(run=run, parser=parser)
    add_model(parser, required=True)
    add_reading(parser, required=True)
    parser.add_argument(
        "--metric", nargs="+", choices=METRICS, default=["grad_x_weight"], metavar="METRIC",
        help=f"one or several of {', '.join(METRICS)} (default: grad_x_weight)",
    )  # fmt: skip
    parser.add_argument(
        "--top", "--topk", nargs="+", type=whole(1), default=[100], metavar="K", help="lengths of the lists (default: 100)"
    )
    parser.add_argument("--per-layer", action="store_true", help="a list of that length for each layer, one after the other")
    parser.add_argument("--modules", nargs="+", metavar="GLOB", help="rank the weights of these modules only, such as '*.mlp.*'")
    parser.add_argument("--eval-limit", type=whole(2), default=100, metavar="N", help="texts to measure with (default: 100)")
    parser.add_argument(
        "--calibration-limit", type=whole(2), metavar="N", help="other texts to rank with (default: as many as --eval-limit)"
    )
    parser.add_argument(
        "--perturbation-ratios", nargs="+", type=ratio, default=list(RATIOS), metavar="R",
        help=f"shares of the list that are changed (default: {' '.join(map('{:g}'.format, RATIOS))})",
    )  # fmt: skip
    parser.add_argument(
        "--method", nargs="+", choices=METHODS, default=["zero"], metavar="METHOD",
        help=f"how: one or several of {', '.join(METHODS)} (default: zero)",
    )  # fmt: skip
    parser.add_argument("--no-perturbation", action="store_true", help="rank only")
    add_running(parser)
    parser.add_argument("--experiment-id", metavar="ID", help="a name for the run (default: the time)")
    parser.add_argument("--out", "--output", metavar="FOLDER", help="default: outputs/critical_analysis_ID")


def run(given: argparse.Namespace, command: list[str]) -> int:
    for name in ("metric", "top", "method", "perturbation_ratios"):
        if len(set(values := getattr(given, name))) < len(values):
            raise UseError(f"--{name.replace('_', '-')} names {next(v for v in values if values.count(v) > 1)} twice")
    given.experiment_id = given.experiment_id or datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    given.out = given.out or f"outputs/critical_analysis_{given.experiment_id}"
    file = read_texts(given.data_file, paragraphs=given.paragraphs, field=given.text_field)
    folder = Path(given.out).expanduser()
    if (folder / MANIFEST).exists() and not (folder / SUMMARY).exists():
        raise UseError(f"{folder} holds a {MANIFEST} of something else, such as a study: give another --out")
    with Session(folder, SUMMARY, "analysis.log", overwrite=given.overwrite, command=command) as session:
        experiment = _measured(given, session, file)
        experiment.write(session)
    lines = [line for finding in experiment.findings for line in in_short(finding)]
    sys.stdout.write("\n".join([*lines, experiment.in_short, f"files: {session.folder}, read report.md first"]) + "\n")
    return 0


def _measured(given: argparse.Namespace, session: Session, file: TextFile) -> Experiment:
    from tensorscope_nb.settings import GIGABYTE, options

    session.say(f"loading {given.model}")
    scope = loaded(**said_of_model(given))
    _check_dtype(scope, given.metric)
    _check_top(scope, given)
    reading = Reading(scope, file.path, given.max_length, given.skip_short)
    wanted = (given.calibration_limit or given.eval_limit, given.eval_limit)
    texts = split(reading, file.texts, wanted, given.seed)
    calibration, evaluation = map(reading.samples, texts, ("calibration", "evaluation"))
    for what, asked, used in zip(("rank", "measure"), wanted, map(len, texts), strict=True):
        fewer = f" ({asked} were asked for: {file.path} has no more)" if used < asked else ""
        session.say(f"{used} texts to {what} with{fewer}")
    if reading.n_short or reading.n_equal:
        session.say(f"left out: {reading.n_short} texts of fewer than two tokens, {reading.n_equal} that are in the file before")
    with options(seed=given.seed, memory=given.memory * GIGABYTE, progress=sys.stderr.isatty()):
        baseline = scope.perplexity(evaluation)
        session.say(f"baseline: {baseline!r}")
        findings = [
            _found(given, session, scope, calibration, evaluation, metric, top) for metric in given.metric for top in given.top
        ]
    return Experiment(given, scope, file, reading, calibration, evaluation, baseline, findings)


def _check_top(scope: Scope, given: argparse.Namespace) -> None:
    """Before anything runs: whether there are such modules, and so many weights."""
    from tensorscope_nb.scope.reference import chosen_parameters

    n = sum(p.nelement() for p in chosen_parameters(scope, given.modules).values())
    if max(given.top) > n:
        raise UseError(f"--top is {max(given.top)} and there are {n:,} weights: ask for fewer")


def _check_dtype(scope: Scope, metrics: list[str]) -> None:
    """What would fail after other rankings are done fails before them."""
    dtype = next(scope.model.parameters()).dtype
    if "hessian_diag" in metrics and dtype.itemsize < 4:
        raise UseError(
            f"--metric hessian_diag, and {scope.name} is in {str(dtype).removeprefix('torch.')}, in which second derivatives are "
            "lost in rounding: give --dtype float32, or leave that metric out"
        )


def _found(
    given: argparse.Namespace, session: Session, scope: Scope, calibration: Samples, evaluation: Samples, metric: str, top: int
) -> Finding:
    """One ranking of its own for each length: which halves of the texts list a weight too depends on the length."""
    from tensorscope_nb.recipes import critical_weights

    session.say(f"ranking by {metric}, top {top}")
    critical = critical_weights(scope, calibration, metric=metric, top=top, per_layer=given.per_layer, modules=given.modules)
    perturbed: dict[str, xr.Dataset] = {}
    reasons: dict[str, list[str]] = {}
    for method in () if given.no_perturbation else given.method:
        session.say(f"changing the top {top} by {metric}: {method}")
        result, why = controlled(
            session, scope, evaluation, critical, list(CONTROLS), method=method, ratios=given.perturbation_ratios,
            n_seeds=given.n_seeds, second_order=not given.first_order,
        )  # fmt: skip
        perturbed |= {} if result is None else {method: result}
        reasons |= {method: why} if why else {}
    return Finding(metric, top, critical, perturbed, reasons)
