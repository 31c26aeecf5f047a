"""One pass over samples, from which any number of reducers read."""

from tensorscope_nb.sweep.capture import Chunk
from tensorscope_nb.sweep.progress import bar
from tensorscope_nb.sweep.sweep import Reducer, sweep

__all__ = ["Chunk", "Reducer", "bar", "sweep"]
