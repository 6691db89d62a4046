"""A trained policy as a folder that any Hugging Face tool reads, with a model card."""
