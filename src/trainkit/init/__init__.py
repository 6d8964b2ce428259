"""Where initial weights come from, when not from the seed: a file, another run, what a library publishes."""
