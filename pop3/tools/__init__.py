"""What the programs in bin/ call."""
