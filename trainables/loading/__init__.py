"""Trained weights read into networks: checkpoints of the user's own, and what libraries publish."""
