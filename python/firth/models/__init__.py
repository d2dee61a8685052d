"""Ways of learning static vectors, one file for each."""
