"""Run folders: made and locked, and read back: listed, filtered, grouped, compared. Nothing here imports torch."""
