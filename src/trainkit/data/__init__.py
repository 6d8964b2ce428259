"""Data: what a data set is (splits), where it comes from (datasets), how batches reach the model (loaders, augment)."""
