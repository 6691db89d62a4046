"""One file a reward component; each is a pure function of the completion, its execution and the task."""
