"""One file a contestant. `python -m bench.contestants.NAME WORK SEED DATA_DIR` does the work and prints one JSON line.

trainkit alone is different: its own command runs, and `trainkit.py` only says how to call it and reads its run folder.
"""
