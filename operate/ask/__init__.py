"""One question to a trained policy: candidates, executed read-only, and the answer that the vote chose."""
