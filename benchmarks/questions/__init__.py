"""Reads the published question files; every question of a file stays, in order."""
