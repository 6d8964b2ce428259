"""A verb under Hydra. Nothing here imports torch.

run.py   flags, overrides, checks; then one job, or the jobs of a sweep
job.py   one job as Hydra calls it, in this process or in a launcher's
help.py  `trainkit VERB --help`
"""
