"""A verb from its words to its end: flags, one job, the jobs of a sweep, how it ended. Nothing here imports torch."""
