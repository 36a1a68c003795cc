"""The stages of a run beside its trials: dense networks, finalists, lost weights, and the end."""
