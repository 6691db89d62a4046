"""Figures with their uncertainty: intervals, tests of differences, samples."""
