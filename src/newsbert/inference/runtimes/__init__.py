"""One module for each library that computes a model's logits."""
