"""A list of critical weights as its recipe gives it, of weights that a test names."""

import numpy as np

from tensorscope_nb.recipes.dataset import dataset
from tensorscope_nb.recipes.modules import layer_of
from tensorscope_nb.scope.fingerprint import fingerprint


def critical(scope, top, bottom=None, sensitivity=None):
    """From pairs (parameter, flat index)."""

    def part(entries, before, dim):
        values = [float(scope.model.get_parameter(name).detach().flatten()[i]) for name, i in entries]
        given = np.abs(values) if sensitivity is None else sensitivity
        return {
            before + "parameter_name": ((dim,), np.array([name for name, _ in entries], dtype=object), "parameter", ""),
            before + "module_path": (
                (dim,),
                np.array([name.rpartition(".")[0] for name, _ in entries], dtype=object),
                "module",
                "",
            ),
            before + "index": ((dim,), np.array([i for _, i in entries]), "flat index", ""),
            before + "value": ((dim,), values, "value", "weight"),
            before + "sensitivity": ((dim,), given, "sensitivity", "nats"),
        }

    variables = part(top, "", "weight")
    layers = [layer_of(scope, name.rpartition(".")[0]) for name, _ in top]
    variables["rank"] = (("weight",), range(1, 1 + len(top)), "rank", "")
    variables["module_layer"] = (("weight",), layers, "layer", "")
    if bottom is not None:
        variables |= part(bottom, "bottom_", "bottom_weight")
    shapes = [[name, list(p.shape)] for name, p in scope.model.named_parameters()]
    said = {"weights": fingerprint(scope), "metric": "grad_x_weight", "parameters": shapes}
    return dataset(variables, {}, **said)
