"""The metrics of the workers, with their labels and buckets.

With the environment variable PROMETHEUS_MULTIPROC_DIR, which must be set before the process imports
this module, figures go to a file for each process in that folder; without it they are this
process's own. prometheus_client decides between the two as it is imported.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = [
    "ANSWERS",
    "BATCH_REQUESTS",
    "BITS_PER_DIM",
    "ERRORS",
    "HELD_OUT_BITS_PER_DIM",
    "PERCENTILE",
    "REGISTRY",
    "SECONDS",
    "STAGES",
    "STAGE_SECONDS",
    "TYPICALITY",
    "VARIABLE",
    "WORKERS",
    "WORKERS_ENDED",
]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

if os.environ.get(VARIABLE):
    # A folder that cannot be had ends a worker as it loads, with the reason, not its requests.
    os.makedirs(os.environ[VARIABLE], exist_ok=True)

REGISTRY = CollectorRegistry()

STAGES = ("queue", "decode", "model", "encode", "total")

SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
# Steps of 0.1 where natural images and digits lie: a histogram's quantile is right to one step.
BITS = (0, 0.25, *(step / 10 for step in range(5, 61)), 6.5, 7, 7.5, 8, 10, 12, 16, 24)
# On images like the held-out ones both are uniform, so an edge is also the share to be expected.
PERCENT = (0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
TAIL = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1)

STAGE_SECONDS = Histogram(
    "tzk_stage_seconds",
    "Seconds of a request by stage; total is from the front, else from the worker, to the answer",
    ["endpoint", "stage"],
    buckets=SECONDS,
    registry=REGISTRY,
)
BATCH_REQUESTS = Histogram(
    "tzk_batch_requests",
    "Requests that a worker was given at once",
    ["endpoint"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    registry=REGISTRY,
)
ANSWERS = Counter(
    "tzk_answers_total",
    "Answers of the workers by class of status",
    ["endpoint", "status_class"],
    registry=REGISTRY,
)
ERRORS = Counter(
    "tzk_errors_total",
    "Errors by kind; each item of a list of requests counts",
    ["endpoint", "title", "status"],
    registry=REGISTRY,
)
BITS_PER_DIM = Histogram(
    "tzk_bits_per_dim",
    "Bits per dimension of scored images",
    ["model", "estimator"],
    buckets=BITS,
    registry=REGISTRY,
)
PERCENTILE = Histogram(
    "tzk_percentile",
    "Share of held-out images, in percent, whose log p(t) is not above the scored image's",
    ["model"],
    buckets=PERCENT,
    registry=REGISTRY,
)
TYPICALITY = Histogram(
    "tzk_typicality",
    "Typicality of scored images, uniform on images like the held-out ones",
    ["model"],
    buckets=TAIL,
    registry=REGISTRY,
)
HELD_OUT_BITS_PER_DIM = Gauge(
    "tzk_held_out_bits_per_dim",
    "Bits per dimension (estimator prior) that the share `rank` of held-out images does not exceed",
    ["model", "rank"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
WORKERS = Gauge(
    "tzk_workers",
    "Live processes that have loaded a model, by model",
    ["model"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
WORKERS_ENDED = Counter(
    "tzk_workers_ended_total",
    "Workers that are gone, whatever ended them, by model",
    ["model"],
    registry=REGISTRY,
)
