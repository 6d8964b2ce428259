"""The data sets, a module for each kind. Every builder returns a `trainkit.data.dataset.Data`."""
