"""Where images come from, and how they become tensors.

Bytes become pixels (`decoding`), pixels get the size and channels of a model (`preparation`),
pixels become densities' arguments (`quantisation`), labels become names (`names`), and folders,
parquet files and the hub become arrays of images (`sources`). Modules are imported one by one:
the command line must not pay for torch or datasets to print its help.
"""
