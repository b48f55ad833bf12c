"""Small named steps from one schema to the next; `NNNN_what.py` in `versions`."""
