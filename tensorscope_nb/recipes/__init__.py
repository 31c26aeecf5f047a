"""Recipes: one function per research question, each returning a named-dimension Dataset with its uncertainty."""

from tensorscope_nb.recipes.ablation import ablation
from tensorscope_nb.recipes.attention import attention_patterns
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
from tensorscope_nb.recipes.lora import LoraTargets, lora_targets
from tensorscope_nb.recipes.recipe import Recipe, catalogue, recipe

__all__ = [
    "Importance",
    "LoraTargets",
    "Recipe",
    "ablation",
    "attention_patterns",
    "catalogue",
    "fisher_importance",
    "fisher_spectrum",
    "gradient_health",
    "grouped_fisher",
    "hybrid_importance",
    "induction_heads",
    "lora_targets",
    "magnitude_importance",
    "recipe",
    "taylor_importance",
]
