"""What a training would be, measured on its own parts before it starts: the work behind `trainkit plan`.

measure.py    all of these facts, as JSON data
layers.py     parameters and FLOPs, layer by layer
memory.py     bytes of weights, optimizer and activations, and the peak of a real step
rehearsal.py  a few real steps and evaluation batches, timed
advice.py     what people usually did not mean
lr_range.py   the loss over a sweep of learning rates
max_batch.py  the largest batch that fits on a CUDA device
"""
