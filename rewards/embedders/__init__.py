"""Texts to unit vectors, for the memory component."""
