"""Checkpoints: the file, the record of which is which, and a run's state to a file and back."""
