"""Retraining: a candidate is trained, judged beside what answers now, and lets itself be used only where it is better."""
