"""Networks: how they are built, loaded, described and stored."""
