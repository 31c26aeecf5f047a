"""Real models with no network: the packaged transformer, its checkpoints, and how any other is loaded."""

from tensorscope_nb.models.checkpoints import Checkpoints, checkpoints
from tensorscope_nb.models.load import load

__all__ = ["Checkpoints", "checkpoints", "load"]
