"""Small subsets of MNIST and Fashion-MNIST (SOURCE.md says whence and under which licence)."""
