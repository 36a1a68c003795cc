"""Channels that a network moves about or splits (ShuffleNet's units), and cuts of the layers that make them.

torch-pruning takes a shuffle for reshapes, and gets lost. Here it is one step that moves channels (``moving``), and what
reaches which layer is found by a pass in which layers put out numbers for their channels (``flow``). Layers whose channels
are moved or split together form a family (``families``): each loses the same share, so that splits stay where they are;
which channels go is free, but for each layer that takes some as many must stay as the narrower network hands it. What a
narrower network hands on in another order is put in that order in the layers that take it.
"""
