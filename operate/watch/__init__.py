"""Looking at a run while it goes: from its files alone, so the run neither knows nor waits."""
