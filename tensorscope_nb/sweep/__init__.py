"""One pass over samples, from which any number of reducers read."""

from tensorscope_nb.sweep.sweep import Chunk, Reducer, bar, sweep

__all__ = ["Chunk", "Reducer", "bar", "sweep"]
