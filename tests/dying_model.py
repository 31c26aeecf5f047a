"""A model that kills the process it runs in, unless that is the one it was made in."""

import os
import signal

import torch


class Dying(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.home = os.getpid()

    def forward(self, x):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(x)
