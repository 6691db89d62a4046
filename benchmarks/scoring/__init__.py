"""Judges answers block by block: executes candidates, lets every voter choose, and applies the official metrics."""
