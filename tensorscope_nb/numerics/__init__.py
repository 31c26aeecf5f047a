"""Linear algebra and statistics that know no models."""

from tensorscope_nb.numerics.intervals import ratio_interval, t_interval

__all__ = ["ratio_interval", "t_interval"]
