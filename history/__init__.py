"""What was thought, and kept: runs on a loop of their own, and the store. It draws nothing."""
