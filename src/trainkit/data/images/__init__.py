"""Image files: decoded by worker processes, cached, or decoded while training."""
