"""The run index: which runs exist, what each was made from and what it reached; and what may be deleted."""
