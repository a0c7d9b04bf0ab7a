"""Attention in PyTorch, for `ualm bench attention --against torch`."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

from ualm_jax.bench.reference_torch import DEVICE, synchronize


class Attention:
    """`scaled_dot_product_attention` on packed documents, which takes a mask for them."""

    def __init__(self, arrays: Sequence[np.ndarray], segment_ids: Int[np.ndarray, "B T"], dtype: str):
        B, T, K, G, H = arrays[0].shape
        shapes = (B, T, K * G, H), (B, T, K, H), (B, T, K, H)
        self._leaves = [
            torch.tensor(array.reshape(shape), dtype=getattr(torch, dtype), device=DEVICE)
            .transpose(1, 2)
            .contiguous()
            .requires_grad_()
            for array, shape in zip(arrays, shapes, strict=True)
        ]
        ids = torch.from_numpy(segment_ids).to(DEVICE)
        one = bool((ids == ids[:, :1]).all())
        mask = (ids[:, None, :, None] == ids[:, None, None, :]).tril()
        self._how = {"is_causal": True} if one else {"attn_mask": mask}

    def _attend(self) -> torch.Tensor:
        return F.scaled_dot_product_attention(*self._leaves, **self._how, enable_gqa=True)

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            out = self._attend()
        synchronize()
        return out

    def result(self) -> Float[np.ndarray, "B T N H"]:
        return self.forward().transpose(1, 2).float().cpu().numpy()

    def both(self) -> None:
        torch.autograd.grad(self._attend().float().sum(), self._leaves)
        synchronize()
