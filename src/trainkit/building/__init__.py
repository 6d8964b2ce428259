"""From config to objects: one component each, and a training run put together of them."""
