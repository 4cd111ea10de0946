"""Every layer and flow on a GPU: the same numbers as on the CPU, and the same way back.

Run with ``pytest -m gpu``; left out where there is no CUDA.
"""

from __future__ import annotations

import pytest
import torch

from tzk_core.flows import ImageFlow, VectorFlow

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=["f32", "f64"]
)
@pytest.mark.parametrize("kind", ["image", "vector"])
def test_same_as_on_the_cpu(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    if kind == "image":
        flow = ImageFlow((3, 32, 32), levels=3, steps=2, width=16, generator=generator)
    else:
        flow = VectorFlow(10, steps=4, width=16, generator=generator)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    flow = flow.to(dtype)
    t = torch.randn(8, *flow.shape, generator=generator).to(dtype)
    with torch.no_grad():
        z, log_det = flow.encode(t)
        flow = flow.cuda()
        z_there, log_det_there = flow.encode(t.cuda())
        back, _ = flow.decode(z_there)
    # TF32 convolutions would lose three digits; PyTorch's default for matmuls is full float32.
    torch.testing.assert_close(z_there.cpu(), z, rtol=10 * tolerance, atol=10 * tolerance)
    torch.testing.assert_close(log_det_there.cpu(), log_det, rtol=1e-3, atol=10 * tolerance)
    torch.testing.assert_close(back.cpu(), t, rtol=tolerance, atol=tolerance)
