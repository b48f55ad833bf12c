"""What answers: one file per engine, each behind a protocol of `base`."""
