"""Answers of a model to the requests of the OpenAPI document, by endpoint and name.

Written by openapi_examples.py, which tells how, from a model of 5,698,792 parameters whose
weights begin with 92e3db9204fc.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ANSWERED"]

ANSWERED: dict[str, dict[str, Any]] = {
    "tzk_nll": {
        "image": {
            "nll_nats": 922.1655117408218,
            "bits_per_dim": 1.2992222760423016,
            "bits_per_dim_native": 1.6969433809532102,
            "typicality": 0.029656781072975674,
            "percentile": 81.1,
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
            "nll_nats": 931.4238125220718,
            "bits_per_dim": 1.3122661282143404,
            "bits_per_dim_native": 1.7139802490962814,
            "typicality": 0.029656781072975674,
            "percentile": 81.1,
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
                "nll_nats": 922.1655117408218,
                "bits_per_dim": 1.2992222760423016,
                "bits_per_dim_native": 1.6969433809532102,
                "typicality": 0.029656781072975674,
                "percentile": 81.1,
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
                "detail": (
                    "no knowledge 'kanji'; there is mnist, mnist/0, mnist/1, mnist/2, mnist/3"
                    ", mnist/4, mnist/5, mnist/6, mnist/7, mnist/8, mnist/9, fashion, fashion"
                    "/t-shirt-top, fashion/trouser, fashion/pullover, fashion/dress, fashion/"
                    "coat, fashion/sandal, fashion/shirt, fashion/sneaker, fashion/bag, fashi"
                    "on/ankle-boot"
                ),
                "pointer": "/given",
                "known": [
                    "mnist",
                    "mnist/0",
                    "mnist/1",
                    "mnist/2",
                    "mnist/3",
                    "mnist/4",
                    "mnist/5",
                    "mnist/6",
                    "mnist/7",
                    "mnist/8",
                    "mnist/9",
                    "fashion",
                    "fashion/t-shirt-top",
                    "fashion/trouser",
                    "fashion/pullover",
                    "fashion/dress",
                    "fashion/coat",
                    "fashion/sandal",
                    "fashion/shirt",
                    "fashion/sneaker",
                    "fashion/bag",
                    "fashion/ankle-boot",
                ],
            },
        ],
    },
    "tzk_sample": {
        "pictures": {
            "seed": 1,
            "path": "mnist",
            "temperature": 0.7,
            "acceptance_rate": 0.2,
            "effective_sample_size": None,
            "exact": False,
            "images": [
                {
                    "seed": 1,
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAABLElEQVR4nGNgGEjASJla"
                        "RixyjP8ZGNk5//xh/v7vP3aDRJf///v///+v9+dqY5PW+f/r1////9/+///j7alETFsZ"
                        "p35/8aTXU44x2q1u/7NvSyXQFbBe/P8/FqpPZObrV53c6I7n5GOGO5x746erAdgdCvWZ"
                        "0cMbSyD6mZCFoeA/A4OYyO8H/5EVMDIwoPhd9J94ArpHGBkRIoynfl4wx+0GBubp/9/o"
                        "Y3Eb3ITU///TsTqekYGBgZGByeL//wvMWBTAPJL9/9cNK2xyEP1sVf//P09hwqIAYgPT"
                        "5Nf//xdgNRxifvHnX0/9sdjOrsXAwMDAZD7749/7JigyLBDqsMaqE4yCGoaC7OeTL2Ix"
                        "gOnR////f774dnFOlCB27/nveP/m7HRDDmyyQwAAAAdOZbMQ8R/3AAAAAElFTkSuQmCC"
                    ),
                    "nll_nats": 1052.7509609595718,
                },
                {
                    "seed": 2,
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAABE0lEQVR4nGNgIBkwkq6F"
                        "DNNV+PEqE1j2vxWfPPu+t593MONxatL/p4dU8Rgg9uP/aw8UF6G6UHDi//+leMxnm/rx"
                        "z0VxPBak3v//tQyPvPDh9zcjWfAoWHL7bQ4/ntgwfHniPC8jK055vk3vboSzMDAxIwsi"
                        "Wygi9em1788ncvKT/v3HooDxf5b6aw15id+fZe9sRuhigrP+M5448usT59f3L97aymNT"
                        "wMjw8scjQb4Pj9T5dBQRPkEygUH5He+XT9zGb79vPsTwH6IHxZH//+jzcnLqvWBZuPYf"
                        "TA+qLyJF2X59e3Ci/TuucDj36/2vn164ZBkYmOr+/zhSji6KHO4snAxf/qMroBCQlsuw"
                        "qaZKPgUAFOlc1+PJlVsAAAAASUVORK5CYII="
                    ),
                    "nll_nats": 926.9638515845718,
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
                "encoder": 1.0,
                "decoder": None,
                "logit": 22.06131362915039,
                "joint": 1.0,
                "normalised": None,
                "reasons": {
                    "decoder": "it was not asked for; send decoder_draws 256",
                },
            },
            "fashion": {
                "encoder": 6.1572743431659305e-12,
                "decoder": None,
                "logit": -25.813386917114258,
                "joint": 6.1572743431659305e-12,
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
                    "nll_nats": 922.1655117408218,
                },
                {
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAA70lEQVR4nGNgGJaAiRmv"
                        "NPu8I/O4GRgYcSqIffL8iyeqiai8eEaGv0y4FTCyvGf+9DMMp/mMDAzi6bdeXMTlAkYG"
                        "BgYGyd1vH+F2IgMjA/OVH584cLiBkYGBgdH7y8s/MjgU/Gdg+P8/iP0xgwBOXzAwMEg+"
                        "ZvnCiFsBy14ebS5BA1wKGBlYHK4+/37bgBEpsJEV/Gf4Me/sr2+8SgyMDP/hhqI6IdVn"
                        "r8THff+RRNAcyfhO+BvzPRRnMTAwImn4/0xJnBfZAAYmBgYkPiPjQzYRNU0GfODa/7+q"
                        "eBUwiJiw41eAEbhYAJ74ph4gwRIAdRY4yjUu5KgAAAAASUVORK5CYII="
                    ),
                    "nll_nats": 456.2065273658218,
                },
                {
                    "png": (
                        "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAWUlEQVR4nN2RsQ2AMAwE"
                        "HxbDo5nJnM2OEmQiB4Ro8l0+p7/C0pQJvPx3wK7FOlrsAe3zws/AloElvcndW4U9AfYK"
                        "GCokySseiHKQfO2ewu7VmQBKhUUyTJIDxF8XyRY+2+YAAAAASUVORK5CYII="
                    ),
                    "nll_nats": 597.8105312720718,
                },
            ],
            "notes": [
                "padded from 28×28 to 32×32",
            ],
            "reasons": {},
        },
    },
}
