"""Prune, retrain, measure: plain PyTorch, and the Ray Tune trainables around it."""
