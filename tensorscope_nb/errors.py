"""The one error of our own: everything else is a plain ValueError, TypeError or LookupError."""


class UnsupportedModel(Exception):
    """The model lacks a part that was asked for; the message names the part and what to do."""
