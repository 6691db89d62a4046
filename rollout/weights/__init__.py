"""Receiving side of weight synchronisation: what a weight update is made of, and how an engine takes it."""
