"""What the paper says in figures, and where: the one place where they are typed."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BITS", "SAID", "SHARE", "Said"]

BITS, SHARE = "bits/dim", "share"


class Said(NamedTuple):
    """A figure of the paper."""

    figure: float
    unit: str  # BITS (lower is better; the paper never says on which D) or SHARE (higher is)
    where: str
    estimator: str  # "prior" or "reconstruction" (Appendix C); "" for a share


SAID = {
    "baseline cifar10": Said(3.54, BITS, "4.1, Fig. 3, Table 2", "prior"),
    "baseline mnist": Said(1.11, BITS, "4.1, Fig. 3, Table 2", "prior"),
    "multi-data cifar10": Said(3.6, BITS, "4.1, Fig. 4", "prior"),
    "mnist-omniglot mnist": Said(1.28, BITS, "4.1, Fig. 4", "prior"),
    "specialise-cifar flow": Said(3.71, BITS, "4.3", "prior"),
    "specialise-cifar cifar10": Said(2.99, BITS, "4.3, Fig. 6, Table 2", "reconstruction"),
    "specialise-cifar mnist": Said(1.33, BITS, "4.3, Fig. 6", "reconstruction"),
    "specialise-multi cifar10": Said(3.1, BITS, "4.3, Fig. 7", "reconstruction"),
    "specialise-multi mnist": Said(1.02, BITS, "4.3, Fig. 7, Table 2", "reconstruction"),
    "hierarchy mnist": Said(1.17, BITS, "4.4, Fig. 9", "reconstruction"),
    "hierarchy digits": Said(1.06, BITS, "4.4, Fig. 9", "reconstruction"),
    "hierarchy accuracy": Said(0.87, SHARE, "4.4", ""),
    "cifar-bits cifar10": Said(3.64, BITS, "4.4", "reconstruction"),
    "cifar-bits accuracy": Said(0.74, SHARE, "4.4", ""),
}
