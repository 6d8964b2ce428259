"""Run folders read back: listed, filtered, sorted, compared. Nothing here imports torch or writes a file."""
