"""What each reward component is worth: the quickstart trained with one of them off, over several seeds."""
