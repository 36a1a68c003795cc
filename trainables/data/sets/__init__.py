"""Data sets: a class each, which knows its training images and, if it has them, validation and test images of its own."""
