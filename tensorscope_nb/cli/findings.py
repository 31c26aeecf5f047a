"""What was found, as rows of tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Finding:
    """One list of critical weights, and what changing them did."""

    metric: str
    top: int
    critical: xr.Dataset
    perturbed: Mapping[str, xr.Dataset] = field(default_factory=dict)  # by method
    reasons: Mapping[str, list[str]] = field(default_factory=dict)  # by method: why it lacks controls, or was not measured

    @property
    def called(self) -> str:
        """In words."""
        return f"{self.metric}, top {self.top}{' of each layer' if self.critical.sizes['weight'] > self.top else ''}"

    @property
    def name(self) -> str:
        return f"top_{self.top}_weights_{self.metric}"

    @property
    def modules(self) -> list[dict[str, Any]]:
        """The modules that have critical weights, most of them first."""
        each = [self.critical.isel(module=i) for i in range(self.critical.sizes["module"])]
        rows = [{"module": str(module["module"].item()), **_numbers(module)} for module in each if int(module["n_critical"])]
        return sorted(rows, key=lambda row: -row["n_critical"])


OF_MODULES = (
    "n_critical", "n_critical_ci_low", "n_critical_ci_high", "n_parameters",
    "enrichment", "enrichment_ci_low", "enrichment_ci_high", "total", "total_ci_low", "total_ci_high",
)  # fmt: skip


def _numbers(module: xr.Dataset) -> dict[str, Any]:
    return {name: module[name].item() for name in OF_MODULES}


def statistics(finding: Finding) -> dict[str, Any]:
    """Of one list: how many weights compete, and each module with its intervals."""
    from tensorscope_nb.study.metadata import metadata

    said = metadata(finding.critical)
    modules = [str(name) for name in finding.critical["module"].values]
    return {
        "n_weights": said.get("n_weights"), "n_listed": finding.critical.sizes["weight"],
        "stability_mean": float(finding.critical["stability"].mean()), "notes": said.get("notes", []),
        "modules": {name: _numbers(finding.critical.isel(module=i)) for i, name in enumerate(modules)},
    }  # fmt: skip


def runs(result: xr.Dataset, **of: Any) -> Iterator[dict[str, Any]]:
    """Each run of a ``perturbation`` as a row, under the names of the columns of ``perturbation_results.csv``."""
    baseline = float(result["baseline_perplexity"]) if "baseline_perplexity" in result else math.nan
    for selection in result["selection"].values:
        for ratio in result["ratio"].values:
            at = result.sel(selection=selection, ratio=ratio)
            for replicate in at["replicate"].values[: 1 if _is_one(at) else None]:
                run = at.sel(replicate=replicate)
                perplexity = float(run["perplexity"]) if "perplexity" in run else math.nan
                yield {
                    **of, "mask_ratio": float(ratio), "weights_masked": int(run["n_changed"]), "baseline_ppl": baseline,
                    "perturbed_ppl": perplexity, "ppl_increase": perplexity - baseline, "ppl_ratio": perplexity / baseline,
                    "selection": str(selection), "replicate": int(replicate), "loss_increase": float(run["loss_increase"]),
                    "ci_low": float(at["ci_low"]), "ci_high": float(at["ci_high"]), "predicted": float(at["predicted"]),
                }  # fmt: skip


def _is_one(at: xr.Dataset) -> bool:
    """Whether it was measured once, and stands in every replicate."""
    return bool((at["loss_increase"] == at["loss_increase"][0]).all() and (at["n_changed"] == at["n_changed"][0]).all())


def effects(result: xr.Dataset) -> list[dict[str, Any]]:
    """Of each selection and ratio the mean increase with its interval; of the list also its excess over each control."""
    rows = []
    for ratio in result["ratio"].values:
        for selection in result["selection"].values:
            at = result.sel(selection=selection, ratio=ratio)
            row = {
                "selection": str(selection), "ratio": float(ratio), "n_changed": int(at["n_changed"].max()),
                "loss_increase": float(at["loss_increase_mean"]), "ci_low": float(at["ci_low"]), "ci_high": float(at["ci_high"]),
                "predicted": float(at["predicted"]), "broken": bool(at["broken"].any()), "weight_rms": float(at["weight_rms"]),
            }  # fmt: skip
            if "control" in result.dims and selection in result["control"].values:
                over = result.sel(control=selection, ratio=ratio)
                row |= {name: float(over[name]) for name in ("excess", "excess_ci_low", "excess_ci_high")}
            rows.append(row)
    return rows
