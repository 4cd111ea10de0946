"""The HTTP front: what stands between callers and TorchServe (design, sections 8 and 9).

It is a small ASGI application on uvicorn, in a process of its own that ``tzk serve`` starts. It
carries what TorchServe cannot do: keys, limits, answers at once when full, problem details for
every error, readiness that is true, request ids, and an end that loses no request. It imports no
torch.

==============  ====================================================================
``app``         what an address does, and how a request passes
``protocol``    limits on a connection: size of the head, slow senders, slow readers
``urls``        the path of a request
``keys``        who may call
``bodies``      reading a request's body within limits
``table``       models: their current version, their workers, requests in hand
``watcher``     keeps the table true
``upstream``    one request to TorchServe
``translation`` TorchServe's errors as problem details
``answers``     sending, and the errors of the front
``admin``       the loopback address: metrics, the table
``run``         sockets, start, drain, end
==============  ====================================================================
"""

from __future__ import annotations
