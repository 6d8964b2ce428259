"""From words on a command line to a checked config. Nothing in this package imports torch.

frame.py    the top-level keys of each verb, with types and ranges
folders.py  where YAML is looked for, and how a file is read
stored.py   the config inside a checkpoint, offered to Hydra as group options
check.py    every value against its schema; all faults in one report
app.py      a verb under Hydra: one job, or the jobs of a sweep
"""
