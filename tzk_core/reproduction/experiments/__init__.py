"""Each of the paper's experiments in a file of its own."""
