"""Answers of a model to the requests of the OpenAPI document, by endpoint and name.

Written by openapi_examples.py, which tells how, from a model of 2,111,728 parameters whose
weights begin with e1a3c272047f.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ANSWERED"]

ANSWERED: dict[str, dict[str, Any]] = {
    "tzk_nll": {
        "image": {
            "nll_nats": 1447.3500820533218,
            "bits_per_dim": 2.0391452986411736,
            "bits_per_dim_native": 2.663373451286431,
            "typicality": 0.0794044665012407,
            "percentile": 75.9950248756219,
            "given": None,
            "estimator": "prior",
            "draws": 1,
            "seed": 7,
            "dims": 1024,
            "dims_native": 784,
            "notes": [
                "padded from 28×28 to 32×32",
            ],
            "reasons": {},
        },
        "given": {
            "nll_nats": 1403.7387539283218,
            "bits_per_dim": 1.977702088863323,
            "bits_per_dim_native": 2.583121095658218,
            "typicality": 0.0794044665012407,
            "percentile": 75.9950248756219,
            "given": "mnist",
            "estimator": "importance",
            "draws": 16,
            "seed": 7,
            "dims": 1024,
            "dims_native": 784,
            "notes": [
                "padded from 28×28 to 32×32",
            ],
            "reasons": {},
        },
        "list": [
            {
                "nll_nats": 1447.3500820533218,
                "bits_per_dim": 2.0391452986411736,
                "bits_per_dim_native": 2.663373451286431,
                "typicality": 0.0794044665012407,
                "percentile": 75.9950248756219,
                "given": None,
                "estimator": "prior",
                "draws": 1,
                "seed": 7,
                "dims": 1024,
                "dims_native": 784,
                "notes": [
                    "padded from 28×28 to 32×32",
                ],
                "reasons": {},
            },
            {
                "type": "about:blank",
                "title": "No such knowledge",
                "status": 404,
                "detail": "no knowledge 'kanji'; there is mnist, fashion",
                "pointer": "/given",
                "known": [
                    "mnist",
                    "fashion",
                ],
            },
        ],
    },
    "tzk_sample": {
        "pictures": {
            "seed": 1,
            "path": "mnist",
            "temperature": 0.7,
            "acceptance_rate": 0.4,
            "effective_sample_size": None,
            "exact": False,
            "images": [
                {
                    "seed": 1,
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAl0lEQVR4nLWTQRKEIAwE"
                        "u6P//7FmD7oqEvdgsblAwmRmCAUMCEeQvKd50/erR7Q7j8s+q+4LQNNe4QAIxmzPchQ0"
                        "DGLzUppWE5dHD8L61SoJUHHycRRBoIFSgjzdWbMcUzScmN3zCgkm5K7cOHYzQGJ7v3P1"
                        "dNIzq8T9RdtEzFjyWosGbGauTa1jSFIairtEPehBf+df8QGeIRN7PuE3LwAAAABJRU5E"
                        "rkJggg=="
                    ),
                    "nll_nats": 536.1938320533218,
                },
                {
                    "seed": 2,
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAABF0lEQVR4nM2SvUoDURCF"
                        "v3Pv3V0kiCSohaIWNgqChY0v5Iv5FOnt7QQLQS0MYpX4hybmjoVs9mazCwYbp5w558yZ"
                        "H/h3oV+VNwpQCQ1p3YTByfrw6dZNGwAIw6+dHV1dn49oApggHl8O3vrDKTKZDFfRRdbx"
                        "+e5BsT++ARmG1RyurEK22cl84nk2l1zc2965ePb2GmUVtfQgg7vuw/glm6CYrKMEGBSn"
                        "uh/h7Yuqt6zCOuXZe/HhJsi02AJM+Zh4GIYD9znnPpkC8Fs9H9KTVHswkELnseuhUWGm"
                        "o7mjhgVEiJrWkwlfEh5f86AUEbJe7toeRxJeXnWFHw1JYK4gEFvoSA6PWl5TEkKusVg6"
                        "bGUvE39XWDa+AXzVRMDVJqCqAAAAAElFTkSuQmCC"
                    ),
                    "nll_nats": 868.6318203345718,
                },
            ],
            "notes": [],
            "reasons": {
                "effective_sample_size": "nothing was resampled",
            },
        },
    },
    "tzk_posterior": {
        "some": {
            "mnist": {
                "encoder": 0.9582248330116272,
                "decoder": None,
                "logit": 3.1327803134918213,
                "joint": 0.9582248330116272,
                "normalised": None,
                "reasons": {
                    "decoder": "it was not asked for; send decoder_draws 256",
                },
            },
            "fashion": {
                "encoder": 0.0007552278111688793,
                "decoder": None,
                "logit": -7.187735557556152,
                "joint": 0.0007552278111688793,
                "normalised": None,
                "reasons": {
                    "decoder": "it was not asked for; send decoder_draws 256",
                },
            },
        },
    },
    "tzk_interpolate": {
        "two": {
            "seed": 7,
            "given": None,
            "method": "linear",
            "space": "z",
            "estimator": "prior",
            "rows": 1,
            "columns": 3,
            "images": [
                {
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAe0lEQVR4nO2SQQ7CMAwE"
                        "h36sflp4WZKXDQdE1ZS6kUDc2JvlsXcTGf4CuA1VxEovOV1UzftVVevFfA2KRgKoBagO"
                        "IZZ9cW9AZ002RHk5ZR6b1d5jeeunj4Bw0zmlMwLi+Z3XKWchA9p3wEFT4ETjRZxsaEyA"
                        "Tnzg+0s9AJB+R9nB310MAAAAAElFTkSuQmCC"
                    ),
                    "nll_nats": 1447.3500820533218,
                },
                {
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAA5ElEQVR4nN2SsU4DMQyG"
                        "fzvnY4AioNLpkCoxtOrEAzAwwMJj8UZdKrU7UucO164VE0MFU4uoWiUxG7qEJjPCW/J/"
                        "9m/HAf5lMEfnSK+vhkyZfLqfjC4CoAhk6jz1T0VTFqT+62WxfUj2oES6anbDoK+2BUHt"
                        "WzNYpisoUKw/xKQAAPDy+k454PpsK5wD6ptHawH8VAneAXL3zNVm/qmqxwDjvJuVZmpV"
                        "UR6OAA7Ojbu31Z4UByTCXBoJLuLliu+xac8Zr5ZYrGtvi2O9HJzn/gMYJ2HSLwtir5oB"
                        "AAIyPSBU/0h8A22hPKFUEownAAAAAElFTkSuQmCC"
                    ),
                    "nll_nats": 498.5419765845718,
                },
                {
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAWUlEQVR4nN2RsQ2AMAwE"
                        "HxbDo5nJnM2OEmQiB4Ro8l0+p7/C0pQJvPx3wK7FOlrsAe3zws/AloElvcndW4U9AfYK"
                        "GCokySseiHKQfO2ewu7VmQBKhUUyTJIDxF8XyRY+2+YAAAAASUVORK5CYII="
                    ),
                    "nll_nats": 929.2368008033218,
                },
            ],
            "notes": [
                "padded from 28×28 to 32×32",
            ],
            "reasons": {},
        },
    },
}
