"""Runtime modules, one for every library that computes a model's logits."""
