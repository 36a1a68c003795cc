"""Prune, retrain, measure: plain PyTorch, and the Ray Tune trainables around it."""

import os

# How long torch's threads spin while they wait for each other before they leave the core to others; read when torch is
# loaded. GNU OpenMP's own value is 30 times this. On idle cores the two are equally fast; beside two other processes on two
# cores, training a small CNN on two threads took 1.7 to 2.0 s an epoch with that one and 1.4 s with this. (Not always: a
# tiny network beside one process was slower with this.)
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"
