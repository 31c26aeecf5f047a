"""Several recipes over one model, or over its checkpoints, held together."""

from tensorscope_nb.study.study import Study

__all__ = ["Study"]
