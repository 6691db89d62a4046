"""What is this completion worth? The only package that runs or compares SQL."""
