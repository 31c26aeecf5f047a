"""A wrapped model: its anatomy, its sites, and the ways to read and edit them."""

from tensorscope_nb.scope.anatomy import Anatomy, Slice
from tensorscope_nb.scope.detect import detect
from tensorscope_nb.scope.scope import Scope

__all__ = ["Anatomy", "Scope", "Slice", "detect"]
