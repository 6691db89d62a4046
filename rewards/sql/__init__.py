"""The only place that runs, parses or compares SQL."""
