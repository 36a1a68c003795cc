"""Attention: which modules of a network are one, how heads are taken from them, and modules that can do with fewer."""
