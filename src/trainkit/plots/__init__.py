"""Arrays to pictures; knows no run."""
