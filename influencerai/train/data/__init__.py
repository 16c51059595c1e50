"""Training data: images and captions, encoded once, and the batches made of them."""
