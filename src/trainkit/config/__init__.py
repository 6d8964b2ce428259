"""From words on a command line to a checked config. Nothing in this package imports torch.

frame.py    the top-level keys of each verb, with types and ranges
folders.py  where YAML is looked for, and how a file is read
trust.py    what no config may say, because it would run code
stored.py   the config inside a checkpoint, offered to Hydra as group options
compose.py  overrides to typed configs, all faults in one report
check.py    every value against its schema
words.py    flags and overrides in any order, and the plugins they name
origin.py   where a value came from: defaults, files, command line
"""
