"""The limit: the service's own call in a process that serves nobody.

    serving_inprocess.py RUN DEVICE

It reads what to measure from standard input, one JSON a line (endpoint, batch, seconds, and
requests as pairs of headers and a body in base64), and answers each with one line (answers,
errors, seconds, cpu_seconds, latencies of calls). The model runs as the handlers run it. Batches of
1 and 16 are not filled up: the limit owes nobody equal bytes.
"""

from __future__ import annotations

import base64
import itertools
import json
import sys
import time
from typing import Any

from tzk_core.service.loading import load_as_served
from tzk_core.service.service import Service
from tzk_core.service.sizes import SIZES, using
from tzk_core.service.wire import RawRequest


def measured(service: Service, told: dict[str, Any]) -> dict[str, Any]:
    """Calls of so many requests at once, for so long."""
    raws = [
        RawRequest(headers=headers, body=base64.b64decode(body))
        for headers, body in told["requests"]
    ]
    turn, latencies, errors = itertools.cycle(raws), [], 0
    began, used = time.perf_counter(), time.process_time()
    while not latencies or time.perf_counter() - began < told["seconds"]:
        group = list(itertools.islice(turn, told["batch"]))
        start = time.perf_counter()
        answers = service.answer(told["endpoint"], group)
        latencies.append(time.perf_counter() - start)
        errors += sum(answer.status != 200 for answer in answers)
    return {
        "answers": len(latencies) * told["batch"],
        "errors": errors,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "latencies": latencies,
    }


if __name__ == "__main__":
    run, device = sys.argv[1:]
    serving, _ = load_as_served(run, device)
    print("ready", flush=True)
    with using(SIZES):
        for line in sys.stdin:
            print(json.dumps(measured(serving, json.loads(line))), flush=True)
