"""From training sequences to what a forward pass reads (`batch.py`): one row a completion (`padded.py`), or one for
several groups whose completions share their prompt (`shared_prefix.py`)."""
