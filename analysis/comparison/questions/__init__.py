"""The questions of the comparison, one module each."""
