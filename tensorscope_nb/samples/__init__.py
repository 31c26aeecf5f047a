"""Samples, and the small real data sets that ship with the package."""

from tensorscope_nb.samples.samples import IGNORED, Samples
from tensorscope_nb.samples.tokenize import token_strings, tokenize, tokenizer_of

__all__ = ["IGNORED", "Samples", "token_strings", "tokenize", "tokenizer_of"]
