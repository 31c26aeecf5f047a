"""What was found, for people: ``report.md``, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorscope_nb.cli.findings import Finding, effects

N_MODULES = 10
CAUTION = """\
## Before you rely on it

- A ranking is a claim about each weight alone and about a small change; setting many to zero is neither. The perturbation
  tests it: believe the list where *top* is clear of the *random* control, whose weights are of the same layers and, where
  the layer has such, of the same size. Where their rms size is far below that of *top*, the list holds the layer's largest
  weights, and there is no match for them.
- Intervals are over texts: they say what other texts of this kind would give, and nothing of other kinds of text.
- *Top − these* is taken text by text: its interval may leave 0 out where those of the two overlap. With few random draws the
  interval of *random* is wide, since it is of other draws too.
- Of a weight whose stability is low other texts would not say that it is critical: read modules before single weights.
- In single precision an increase below about a millionth of the loss is rounding, whatever its interval says.
- Embeddings come first where the texts repeat a few tokens.
- Where measured and predicted increase part, the change is too large for gradient and curvature, or the weights act together.
- Several metrics, sizes and ratios are several looks at the same texts: an interval that just leaves 0 out is no proof."""


def report(title: str, asked: Sequence[tuple[str, str]], findings: Iterable[Finding], baseline: str, notes: Sequence[str]) -> str:
    """The report as Markdown."""
    lines = [f"# {title}", "", *(f"- {what}: {value}" for what, value in asked), f"- Baseline: {baseline}", ""]
    for finding in findings:
        lines += [f"## {finding.called}", "", *_stability(finding), *_modules(finding), ""]
        for method, result in finding.perturbed.items():
            lines += [f"### What the loss does: {method}", "", *perturbed_table(effects(result)), ""]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join([*lines, CAUTION, ""])


def _stability(finding: Finding) -> list[str]:
    mean = float(finding.critical["stability"].mean())
    said = f"Mean stability {mean:.2f}: the share of the halves of the texts that list a weight too, on average over the list"
    return [f"{said} (for each weight in `critical_{finding.name}.nc`).", ""] if mean == mean else []


def _modules(finding: Finding) -> list[str]:
    rows = finding.modules
    shown = [
        (
            f"`{row['module']}`", str(row["n_critical"]), interval(row["n_critical_ci_low"], row["n_critical_ci_high"]),
            f"{row['n_parameters']:,}", multiple(row["enrichment"]),
            interval(row["enrichment_ci_low"], row["enrichment_ci_high"]),
        )
        for row in rows[:N_MODULES]
    ]  # fmt: skip
    head = ("module", "critical weights", "95 % interval", "weights", "× chance", "95 % interval")
    more = [f"… and {len(rows) - N_MODULES} more modules"] if len(rows) > N_MODULES else []
    return [*table(head, shown), *(["", *more] if more else [])]


def perturbed_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = (
        "share", "weights", "changed", "rms size", "loss increase (nats)", "95 % interval", "predicted",
        "top − these", "95 % interval",
    )  # fmt: skip
    shown = [
        (
            f"{row['ratio']:g}", row["selection"], f"{row['n_changed']:,}", f"{row['weight_rms']:.3g}",
            number(row["loss_increase"]), interval(row["ci_low"], row["ci_high"]), number(row["predicted"]),
            number(row.get("excess")), interval(row.get("excess_ci_low"), row.get("excess_ci_high")),
        )
        for row in rows
    ]  # fmt: skip
    return table(head, shown)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def number(value: float | None) -> str:
    """A signed number, or a dash where there is none."""
    return "–" if value is None or value != value else f"{value:+.3g}"


def multiple(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None or low != low or high != high else f"{low:.3g} to {high:.3g}"


def in_short(finding: Finding) -> list[str]:
    """A few lines of one list: where it is, and what the whole of it does against the controls."""
    lines = []
    rows = finding.modules
    named = ", ".join(f"{row['module']} {row['n_critical']} (×{multiple(row['enrichment'])})" for row in rows[:3])
    lines.append(f"{finding.called}: {named}" + (f" and {len(rows) - 3} more modules" if len(rows) > 3 else ""))
    for method in dict.fromkeys([*finding.perturbed, *finding.reasons]):
        measured = effects_in_short(effects(finding.perturbed[method])) if method in finding.perturbed else ""
        lines.append(f"  {method}: {measured or finding.reasons[method][-1]}")
    return lines


def effects_in_short(rows: Sequence[dict[str, Any]]) -> str:
    """The loss increases at the largest share."""
    most = max(row["ratio"] for row in rows)
    said = [
        f"{row['selection']} {row['loss_increase']:+.3g} ({interval(row['ci_low'], row['ci_high'])})"
        for row in rows
        if row["ratio"] == most
    ]
    return f"loss increase in nats at share {most:g}, with 95 % intervals: {', '.join(said)}"
