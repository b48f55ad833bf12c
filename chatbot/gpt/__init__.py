"""The chat model's own training: pretraining, fine-tuning, measuring, and what it takes to run the result."""
