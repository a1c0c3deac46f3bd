"""Documents become tokens on disk, once."""
