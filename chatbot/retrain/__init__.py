"""Retraining: a candidate is trained, judged beside the model in use, and answers only where it is better."""
