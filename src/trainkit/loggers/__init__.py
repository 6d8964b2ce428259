"""Where the facts of a run go."""
