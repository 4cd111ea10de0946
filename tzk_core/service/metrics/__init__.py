"""Prometheus metrics: what the workers and the front count, and the text that is scraped.

Set PROMETHEUS_MULTIPROC_DIR to one folder for all processes of a server, before they start:
workers and the front write there, and ``exposition`` adds up. Without it, figures are the process's
own. Nothing here imports torch, so that the front stays small; and this file imports nothing, so
that the front's metrics do not join the workers' registry.

===============  ===================================================================
``definitions``  the workers' metrics, with their labels and buckets
``labels``       values of labels, from short lists
``stages``       where the time of a batch goes
``batch``        one batch of a worker, as metrics and logs see it
``quality``      how the images that come compare with held-out ones
``front``        what the front counts of each request
``files``        ``exposition``: the text that Prometheus reads, of all processes
===============  ===================================================================

==========================  =========  ==========================  ===============================
metric                      type       labels                      written by
==========================  =========  ==========================  ===============================
tzk_stage_seconds           histogram  endpoint, stage             worker, each request
tzk_batch_requests          histogram  endpoint                    worker, each batch
tzk_answers_total           counter    endpoint, status_class      worker, each request
tzk_errors_total            counter    endpoint, title, status     worker, each item that failed
tzk_bits_per_dim            histogram  model, estimator            worker, each image scored
tzk_percentile              histogram  model                       worker, each image scored
tzk_typicality              histogram  model                       worker, each image scored
tzk_held_out_bits_per_dim   gauge      model, rank                 worker, once
tzk_workers                 gauge      model                       worker, once
tzk_workers_ended_total     counter    model                       who calls ``exposition``
tzk_front_seconds           histogram  endpoint, status_class      front, each request
tzk_front_answers_total     counter    endpoint, status            front, each request
tzk_front_in_flight         gauge      endpoint                    front
tzk_front_ready             gauge                                  front
==========================  =========  ==========================  ===============================

``model`` is the first twelve digits of the weights' SHA-256.
"""

from __future__ import annotations
