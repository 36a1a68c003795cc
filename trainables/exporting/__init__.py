"""Files for use outside a study."""
