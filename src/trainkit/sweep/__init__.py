"""What Hydra's multirun lacks: a table and a file of all jobs, whatever launcher or sweeper ran them."""
