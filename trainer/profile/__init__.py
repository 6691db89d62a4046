"""Profiles of chosen optimizer steps, as traces that Perfetto opens."""
