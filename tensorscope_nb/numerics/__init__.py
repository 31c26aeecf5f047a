"""Linear algebra and statistics that know no models."""

from tensorscope_nb.numerics.intervals import bootstrap_ratio, t_interval

__all__ = ["bootstrap_ratio", "t_interval"]
