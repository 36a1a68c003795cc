"""How a network's values are written to be shipped, and the file that holds them."""
