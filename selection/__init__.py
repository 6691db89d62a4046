"""Which candidate do we answer with? Pure functions over executed candidates."""
