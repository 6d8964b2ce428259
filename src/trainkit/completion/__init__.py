"""Tab completion: a script for each shell, and the words it offers. Stands above `cli.py`, whose verbs it completes."""
