"""Measurements beside other programs, all in one run: `make bench`. No test asserts a time."""
