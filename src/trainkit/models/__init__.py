"""The models, one file for each family. Every builder takes `(in_shape, num_outputs)` and returns an `nn.Module`."""
