"""The same work by trainkit and by its peers, side by side: `python -m bench`."""
