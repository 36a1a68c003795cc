"""Where files live: folders, object stores, and the store of steps."""
