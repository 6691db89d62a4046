"""Keeps transformers' warnings and progress bars out of a rank's output; errors stay."""

from transformers.utils import logging


def quiet_transformers() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
