"""Data sets: what training and validation see. Test images are in ``trainables.data.test_split`` alone."""

from trainables.data.dataset import Data, DataSettings, load

__all__ = ["Data", "DataSettings", "load"]
