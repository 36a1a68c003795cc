"""Prune, retrain, measure: plain PyTorch, and the Ray Tune trainables around it."""

import os

# How long torch's threads spin while they wait for each other before they leave the core to others; read when torch is
# loaded. GNU OpenMP's own value is 30 times this, and where other processes want the same cores, it has been seen to make
# training on two threads 2 to 6 times slower. On an idle machine the two are equally fast.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"
