"""Sending side of weight synchronisation, used inside the learner's ranks."""
