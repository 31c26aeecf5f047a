"""Gradients in each of their forms, and as they are."""

import torch

from tensorscope_nb.sweep.forms import Gradients, Lookup, Product, Whole


def random_gradients(kind, n, terms, rows, columns, seed):
    """The gradients in one of their forms, and as they are."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    product = Product(draw(n, terms, rows), draw(n, terms, columns))
    lookup = Lookup(torch.randint(rows, (n, terms + 1), generator=generator), draw(n, terms + 1, columns), rows)
    whole = Whole(draw(n, rows, columns))
    made = {
        "product": [product],
        "lookup": [lookup],
        "whole": [whole],
        "tied": [product, lookup],
        "called twice": [product, Product(draw(n, 2, rows), draw(n, 2, columns))],
        "all": [product, lookup, whole],
        "nothing": [],
    }[kind]
    dense = torch.zeros(n, rows, columns, dtype=torch.float64)
    for form in made:
        if isinstance(form, Product):
            dense += torch.einsum("ntr,ntc->nrc", form.left, form.right)
        elif isinstance(form, Lookup):
            for i in range(n):
                for t, token in enumerate(form.tokens[i]):
                    dense[i, token] += form.right[i, t]
        else:
            dense += form.values
    return Gradients(draw(rows, columns), made, n), dense
