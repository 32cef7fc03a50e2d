import torch

from raypipe.model.dot_product import attend


def test_attention_on_a_cpu_is_float32_also_under_bfloat16() -> None:
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    q.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = attend(q, k, v)
        again = q @ k.transpose(-1, -2)
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, attend(q.float(), k.float(), v.float()), rtol=0, atol=0)
    assert again.dtype == torch.bfloat16  # what comes after is rounded as before
    read.sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None and q.grad.dtype == torch.bfloat16
