"""The pipeline simulated on up to 1,024 devices; a front for the trainer's own simulation."""
