"""Recipes: one function per research question, each returning a named-dimension Dataset with its uncertainty."""

from tensorscope_nb.recipes.ablation import ablation
from tensorscope_nb.recipes.attention import attention_patterns
from tensorscope_nb.recipes.induction import induction_heads
from tensorscope_nb.recipes.recipe import Recipe, catalogue, recipe

__all__ = ["Recipe", "ablation", "attention_patterns", "catalogue", "induction_heads", "recipe"]
