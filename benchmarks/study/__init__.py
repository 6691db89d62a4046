"""Voters compared on candidate files, and the reranker trained on them."""
