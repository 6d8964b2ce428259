"""Losses, one file for each family of targets.

base.py   the contract: `Loss`, and how a loss is found and built
"""
