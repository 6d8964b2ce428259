"""One file per verb, short: each puts the parts together and returns the result as JSON data."""
