"""Recipes: one function per research question, each returning a named-dimension Dataset with its uncertainty."""

from tensorscope_nb.recipes.ablation import ablation
from tensorscope_nb.recipes.attention import attention_patterns
from tensorscope_nb.recipes.attention_attribution import attention_attribution
from tensorscope_nb.recipes.attribution import logit_attribution
from tensorscope_nb.recipes.circuits import circuits
from tensorscope_nb.recipes.cka import linear_cka
from tensorscope_nb.recipes.compare_models import compare_models
from tensorscope_nb.recipes.compare_perturbations import compare_perturbations
from tensorscope_nb.recipes.conflict import gradient_alignment, gradient_conflict, project_conflict
from tensorscope_nb.recipes.critical_samples import critical_samples
from tensorscope_nb.recipes.critical_weights import critical_weights
from tensorscope_nb.recipes.curation import conflict_pairs, conflict_tokens, curate
from tensorscope_nb.recipes.eigenvalues import fisher_eigenvalues, hessian_eigenvalues
from tensorscope_nb.recipes.fiber_bundle import fiber_bundle_test
from tensorscope_nb.recipes.fisher import fisher_spectrum, grouped_fisher
from tensorscope_nb.recipes.health import gradient_health
from tensorscope_nb.recipes.importance import Importance
from tensorscope_nb.recipes.importance_scores import (
    fisher_importance,
    hybrid_importance,
    magnitude_importance,
    taylor_importance,
)
from tensorscope_nb.recipes.induction import induction_heads
from tensorscope_nb.recipes.interference import qkov_interference, qkov_pair, top_conflicts
from tensorscope_nb.recipes.landscape import loss_landscape
from tensorscope_nb.recipes.lens import logit_lens
from tensorscope_nb.recipes.lora import LoraTargets, lora_targets
from tensorscope_nb.recipes.overlap import fisher_overlap
from tensorscope_nb.recipes.pairing import qk_ov_pairing
from tensorscope_nb.recipes.patching import patching
from tensorscope_nb.recipes.perturbation import perturbation
from tensorscope_nb.recipes.pruning import prune_curve
from tensorscope_nb.recipes.recipe import Recipe, catalogue, recipe
from tensorscope_nb.recipes.removal import removal_effect
from tensorscope_nb.recipes.sample_conflicts import sample_conflicts
from tensorscope_nb.recipes.sharpness import sam_sharpness
from tensorscope_nb.recipes.similarity import representational_similarity
from tensorscope_nb.recipes.singularities import embedding_singularities
from tensorscope_nb.recipes.superposition import superposition
from tensorscope_nb.recipes.tickets import iterative_magnitude_pruning, masks
from tensorscope_nb.recipes.tracin import tracin
from tensorscope_nb.recipes.validate_sensitivity import validate_sensitivity
from tensorscope_nb.recipes.weight_list import weight_table

__all__ = [
    "Importance",
    "LoraTargets",
    "Recipe",
    "ablation",
    "attention_attribution",
    "attention_patterns",
    "catalogue",
    "circuits",
    "compare_models",
    "compare_perturbations",
    "conflict_pairs",
    "conflict_tokens",
    "critical_samples",
    "critical_weights",
    "curate",
    "embedding_singularities",
    "fiber_bundle_test",
    "fisher_eigenvalues",
    "fisher_importance",
    "fisher_overlap",
    "fisher_spectrum",
    "gradient_alignment",
    "gradient_conflict",
    "gradient_health",
    "grouped_fisher",
    "hessian_eigenvalues",
    "hybrid_importance",
    "induction_heads",
    "iterative_magnitude_pruning",
    "linear_cka",
    "logit_attribution",
    "logit_lens",
    "lora_targets",
    "loss_landscape",
    "magnitude_importance",
    "masks",
    "patching",
    "perturbation",
    "project_conflict",
    "prune_curve",
    "qk_ov_pairing",
    "qkov_interference",
    "qkov_pair",
    "recipe",
    "removal_effect",
    "representational_similarity",
    "sam_sharpness",
    "sample_conflicts",
    "superposition",
    "taylor_importance",
    "top_conflicts",
    "tracin",
    "validate_sensitivity",
    "weight_table",
]
