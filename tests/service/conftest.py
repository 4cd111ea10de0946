from __future__ import annotations

import pytest
from tiny_model import png, tiny_model

from tzk_core.service.service import Service


@pytest.fixture(scope="session")
def service():
    return Service(tiny_model())


@pytest.fixture(scope="session")
def image():
    return png()
