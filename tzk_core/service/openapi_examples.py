"""Real requests and answers for the OpenAPI document.

The images are digits of the MNIST test set; the answers are those of a trial model of MNIST and its
digits, so a server with another model gives other numbers. The problem is that of a name which the
model does not know, alone and as one item of a list.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ANSWERED", "ASKED", "UNKNOWN"]

DIGIT = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAdElEQVR4nNWQyQ0CQQwEi01sHdoQ2cxEVjwQe4DX"
    "Evzol6Vyt1uGf9LtMEeszJbvNVVz1lW1X/h60DQSqDagezi67ON9AJM1cUZ7pWe5W/yeu7yxtCyEmz43tKIQzzdd"
    "N6oKBYzf4EklTAoVzkEBJ/HVpVwP4nNH2fVosXgAAAAASUVORK5CYII="
)
OTHER = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAWElEQVR4nMWRUQqAQAgFX10sj2Ync282fUXY4hZB"
    "7PvT0UFQmp7AS+aAXeU68vSwfd78AW4ZLqkid95r7Qnu5UGjTUnyahKIUkP+WK+1e+NMAKXWIlmn5AAvnxfJV1Ew"
    "mwAAAABJRU5ErkJggg=="
)
SAMPLED_0 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAABUklEQVR4nGNgIBIwEhSgAUC3g5FcWzG0GRrcO8b3"
    "9ed/HMrVF7/6f+jwvsXyOMzjPfz+4r3Hj/f9z4abzIIsz5oo+nDpEfFiTYZj2K2Q/PSsTJxBZ9+uMja4GIoJr9a+"
    "W/iSQeT/422/4GJMSB7hKlCXZpGwq9W/cp0J2QS4dY6l4moxn6XUhN1/Lv2IxQqRWjaG+xI61qffvFSUuwLThjCL"
    "oUzr671b6+9kZy3/EZbAhhmGam9/XUsUZGBiYGB79f8RH6YfNf9/T4X4jvPU/8tYAiHpfzPEQYzSe/6EokkyMjAo"
    "3P2vBHGVfObr/yjeZGBg+M/AwC/85gkDAwMDb4y/7LH1/zBt4Dj9OouBgZk35PDHF//1UQyHAr0tH3b9538eKHpn"
    "48a7WExgYKh7/PV9+/HrZbJMyKJIocEkKPr+699/v3AkJhy6Bj1gZGBgYAAAOctx7Hh+xUwAAAAASUVORK5CYII="
)
SAMPLED_1 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAABN0lEQVR4nGNgQAGMDEMGMOJwKyNPgAULA4No/u1k"
    "7Aqy7/16sbhswfG/b+YiBJkQzPiu33dv/zeWOvOD4TlClAXBNLox89BTHkc+p1+CGkz/GBgY/2N3iLj3k6/PJbGZ"
    "AAVfdESOvf2ISwH7H1UNYXbW2B/YvcEgu/nJtW/H3tngkGZgyLn8992PV7NxyrMs/v3vz50+cWQxJhQV/84yfvpi"
    "a41Twb+TzCf2sJjMc0MSQ40WweQvT5k75e/Yvse0n5GBgYFReaogG+/mfy9MsFjxn4GBQdJNjeUXI8d3oW9IDkcy"
    "w6JEaN1r7kIFlh83sSlQzrAWfO7y73qMyvPev5hOYGCsu/5616ODN+7++v1FBEkcbsL/LW+DRGV/inKzMES/wWIA"
    "AwMDA7Psgp1PPx9yxyE9lAEAxs9n9nz/5E0AAAAASUVORK5CYII="
)
BETWEEN_0 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAe0lEQVR4nO2SQQ7CMAwEh36sflp4WZKXDQdE1ZS6"
    "kUDc2JvlsXcTGf4CuA1VxEovOV1UzftVVevFfA2KRgKoBagOIZZ9cW9AZ002RHk5ZR6b1d5jeeunj4Bw0zmlMwLi"
    "+Z3XKWchA9p3wEFT4ETjRZxsaEyATnzg+0s9AJB+R9nB310MAAAAAElFTkSuQmCC"
)
BETWEEN_1 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAA00lEQVR4nGNgGJZAxI4XlxQjAwOD0KKLb7LwaOdo"
    "/v3u3wpGZCEmFDOc4v/c+3/1P24TjNc9ffEfjzwDA0fUxa9vmfCpkDnx/T8LTjcwMDB8lv3OIIRPAfd9PgYbfAp0"
    "WZ58VsOnQOy9KDczAyTUsADmuDf3/vy8hMsERgYVuyvin76/YsZpAoNC6uyv922QdaG54c03jvcrzv1jxKngu6Qw"
    "j/Jfxv84Ffw31PpozYocG2gKWB7xSEmJ43AgAwMDA8fm//+L8MgzMIhs0GHHq2BoAgCAYzvOEAvN7QAAAABJRU5E"
    "rkJggg=="
)
BETWEEN_2 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAWUlEQVR4nN2RsQ2AMAwEHxbDo5nJnM2OEmQiB4Ro"
    "8l0+p7/C0pQJvPx3wK7FOlrsAe3zws/AloElvcndW4U9AfYKGCokySseiHKQfO2ewu7VmQBKhUUyTJIDxF8XyRY+"
    "2+YAAAAASUVORK5CYII="
)

ASKED: dict[str, dict[str, Any]] = {
    "tzk_nll": {
        "image": {"image": DIGIT, "seed": 7},
        "given": {"image": DIGIT, "given": "mnist", "seed": 7},
        "list": [{"image": DIGIT, "seed": 7}, {"image": OTHER, "given": "kanji"}],
    },
    "tzk_sample": {
        "pictures": {"given": "mnist/3", "n": 2, "seed": 1, "temperature": 0.7, "format": "json"},
        "everything": {},
    },
    "tzk_posterior": {"some": {"image": DIGIT, "seed": 7, "knowledge": ["mnist", "mnist/7"]}},
    "tzk_interpolate": {"two": {"images": [DIGIT, OTHER], "steps": 3, "seed": 7, "format": "json"}},
}
"""Requests in JSON by endpoint and name."""

UNKNOWN: dict[str, Any] = {
    "type": "about:blank",
    "title": "No such knowledge",
    "status": 404,
    "detail": "no knowledge 'kanji'; there is mnist, mnist/0, mnist/1, mnist/2, mnist/3, "
    "mnist/4, mnist/5, mnist/6, mnist/7, mnist/8, mnist/9",
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
    ],
}

ANSWERED: dict[str, dict[str, Any]] = {
    "tzk_nll": {
        "image": {
            "nll_nats": 951.7519375220718,
            "bits_per_dim": 1.3409060550972223,
            "bits_per_dim_native": 1.7513875005351474,
            "typicality": None,
            "percentile": None,
            "given": None,
            "estimator": "prior",
            "draws": 1,
            "seed": 7,
            "dims": 1024,
            "dims_native": 784,
            "notes": ["padded from 28×28 to 32×32"],
            "reasons": {
                "typicality": "no statistics for it are stored in this model",
                "percentile": "no log p of held-out images is stored in this model",
            },
        },
        "given": {
            "nll_nats": 954.5346523658218,
            "bits_per_dim": 1.3448265716062908,
            "bits_per_dim_native": 1.7565081751592369,
            "typicality": None,
            "percentile": None,
            "given": "mnist",
            "estimator": "importance",
            "draws": 16,
            "seed": 7,
            "dims": 1024,
            "dims_native": 784,
            "notes": ["padded from 28×28 to 32×32"],
            "reasons": {
                "typicality": "no statistics for it are stored in this model",
                "percentile": "no log p of held-out images is stored in this model",
            },
        },
        "list": [
            {
                "nll_nats": 951.7519375220718,
                "bits_per_dim": 1.3409060550972223,
                "bits_per_dim_native": 1.7513875005351474,
                "typicality": None,
                "percentile": None,
                "given": None,
                "estimator": "prior",
                "draws": 1,
                "seed": 7,
                "dims": 1024,
                "dims_native": 784,
                "notes": ["padded from 28×28 to 32×32"],
                "reasons": {
                    "typicality": "no statistics for it are stored in this model",
                    "percentile": "no log p of held-out images is stored in this model",
                },
            },
            UNKNOWN,
        ],
    },
    "tzk_sample": {
        "pictures": {
            "seed": 1,
            "path": "mnist/3",
            "temperature": 0.7,
            "acceptance_rate": 0.058823529411764705,
            "effective_sample_size": None,
            "exact": False,
            "images": [
                {"seed": 1, "png": SAMPLED_0, "nll_nats": 1144.4570156470718},
                {"seed": 2, "png": SAMPLED_1, "nll_nats": 1070.6054531470718},
            ],
            "notes": [],
            "reasons": {"effective_sample_size": "nothing was resampled"},
        }
    },
    "tzk_posterior": {
        "some": {
            "mnist": {
                "encoder": 1.0,
                "decoder": None,
                "logit": 243.44012451171875,
                "joint": 1.0,
                "normalised": None,
                "reasons": {"decoder": "it was not asked for; send decoder_draws 256"},
            },
            "mnist/7": {
                "encoder": 0.8948423862457275,
                "decoder": None,
                "logit": 2.1411871910095215,
                "joint": 0.8948423862457275,
                "normalised": 0.9869726300239563,
                "reasons": {"decoder": "it was not asked for; send decoder_draws 256"},
            },
        }
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
                {"png": BETWEEN_0, "nll_nats": 951.7529140845718},
                {"png": BETWEEN_1, "nll_nats": 466.7197109595718},
                {"png": BETWEEN_2, "nll_nats": 617.1235195533218},
            ],
            "notes": ["padded from 28×28 to 32×32"],
            "reasons": {},
        }
    },
}
"""Answers by endpoint and the request's name."""
