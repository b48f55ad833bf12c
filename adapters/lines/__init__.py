"""Plain lines over stdin and stdout, for scripts: one line in, one line out."""
