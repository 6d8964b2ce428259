"""Parts of a training step: guard, moving average, forward pass, signals, debugging."""
