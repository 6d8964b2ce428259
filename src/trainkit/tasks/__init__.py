"""What targets mean, one file each: which are valid, how many outputs a model needs, what is measured, what is told.

base.py     the contract: `Task`, `Metric`, `Sum`
meter.py    the sums of one pass over a split
"""
