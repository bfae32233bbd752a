"""Guards taken away one at a time: whether a test notices."""
