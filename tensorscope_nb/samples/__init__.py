"""Samples, and the small real data sets that ship with the package."""

from tensorscope_nb.samples.samples import IGNORED, Samples
from tensorscope_nb.samples.tokenize import start_of, token_strings, tokenize, tokenizer_of

__all__ = ["IGNORED", "Samples", "start_of", "token_strings", "tokenize", "tokenizer_of"]
