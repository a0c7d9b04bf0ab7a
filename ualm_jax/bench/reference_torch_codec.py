"""A codec's training step in eager PyTorch, for `ualm bench codec --training --against torch`.

The network, losses, discriminators and optimisers of `train.codec_step`, written as one writes them in PyTorch:
channels before time, `torch.stft`, `conv_transpose1d`. What both parts of a step need is computed once.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional as F

from ualm_jax.bench.reference_torch import DEVICE, synchronize
from ualm_jax.codecs import discriminators, losses
from ualm_jax.codecs.xcodec import dac, quantizer
from ualm_jax.codecs.xcodec.trainable import SMALLEST_ALPHA
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.optimizer import OptimizerConfig

Tree = Any


class Training:
    """The step with codes, with discriminators where `judged`, from `parameters` as `codec_training.Ours` gives them.

    `config` draws nothing at random (`codec_training.repeatable`) and keeps its learning rates.
    """

    def __init__(self, config: CodecRunConfig, parameters: dict[str, Any], wav: np.ndarray, judged: bool):
        self._config, self._codec = config, config.codec.trainable().config
        self._params = _tree(parameters["params"], config.codec.linear_ends)
        self._alphas = [leaf for name, leaf in _leaves(self._params) if "alpha" in name]
        self._wav = torch.from_numpy(wav).to(DEVICE)
        self._books = _Codebooks(torch.from_numpy(parameters["codebooks"].copy()).to(DEVICE), config.quantizer)
        self._optimizer = _Optimizer([leaf for _, leaf in _leaves(self._params)], config.optimizer)
        self._average = [leaf.detach().clone() for leaf in self._optimizer.params]
        self._bands = {
            window: torch.from_numpy(losses.bands(window, self._codec.sample_rate)).to(DEVICE)
            for window in config.loss.windows
        }
        self._judges = None
        if judged:
            self._judges = _tree(parameters["judges"], linear_ends=False)
            self._judges_optimizer = _Optimizer([leaf for _, leaf in _leaves(self._judges)], config.judges_optimizer)

    def step(self) -> tuple[float, float]:
        """Loss and norm of its gradient before it is clipped."""
        vectors, commitment, chosen = self._books.quantize(self._vectors(self._wav))
        made = self._waveform(vectors)
        cost = self._config.loss.commitment * commitment
        at_waveform = made.detach().requires_grad_()
        loss = self._reconstruction(at_waveform)
        (pull,) = torch.autograd.grad(loss, at_waveform)
        if self._judges is not None:
            against = self._judged(at_waveform)
            pull = pull + self._config.adversarial.share * pull.norm() / (against.norm() + 1e-12) * against
        torch.autograd.backward((made, cost), (pull, torch.ones_like(cost)))
        norm = self._optimizer.step()
        with torch.no_grad():
            self._books.move(chosen)
            for alpha in self._alphas:
                alpha.copy_(alpha.abs().clamp_min(SMALLEST_ALPHA).copysign(alpha))
            torch._foreach_lerp_(self._average, self._optimizer.params, 1 - self._config.train.averaging)
        synchronize()
        return (loss + cost).item(), norm

    def _judged(self, wav: torch.Tensor) -> torch.Tensor:
        """The gradient of what discriminators say at the waveform; they themselves take a step."""
        config = self._config.adversarial
        real, found = (self._discriminate(each) for each in (self._wav, wav))

        def verdict(of: list[list[torch.Tensor]], wanted: float) -> torch.Tensor:
            return sum(((layers[-1] - wanted) ** 2).mean() for layers in of) / len(of)

        terms = [
            (a - b.detach()).abs().mean() / (b.detach().abs().mean() + 1e-4)
            for mine, theirs in zip(found, real, strict=True)
            for a, b in zip(mine[:-1], theirs[:-1], strict=True)
        ]
        fooling = verdict(found, 1.0) + config.feature_matching * sum(terms) / len(terms)
        (against,) = torch.autograd.grad(fooling, wav, retain_graph=True)
        telling_apart = verdict(real, 1.0) + verdict(found, 0.0)
        telling_apart.backward(inputs=self._judges_optimizer.params)
        self._judges_optimizer.step()
        return against

    def _vectors(self, wav: torch.Tensor) -> torch.Tensor:
        """[B, N] to what is quantised, [B, T, D]."""
        params, strides = self._params["acoustic_encoder"], self._codec.acoustic.downsampling_ratios
        absent = len(strides) - len(params["blocks"])
        x = wav[:, None]
        if absent:
            x = F.conv1d(x, **params["first"], stride=strides[0], padding=-(-strides[0] // 2))
        else:
            x = F.conv1d(x, **params["first"], padding=3)
        for block, stride in zip(params["blocks"], strides[absent:], strict=True):
            x = _snake(_residual_units(block["units"], x), block["alpha"])
            x = F.conv1d(x, **block["down"], stride=stride, padding=-(-stride // 2))
        x = F.conv1d(_snake(x, params["alpha"]), **params["last"], padding=1)
        return F.linear(x.mT, **self._params["fc"])

    def _waveform(self, vectors: torch.Tensor) -> torch.Tensor:
        """[B, T, D] to [B, N]."""
        params, strides = self._params["acoustic_decoder"], self._codec.acoustic.upsampling_ratios
        x = F.conv1d(F.linear(vectors, **self._params["fc2"]).mT, **params["first"], padding=3)
        for block, stride in zip(params["blocks"], strides, strict=False):
            x = _residual_units(block["units"], _upsample(_snake(x, block["alpha"]), block["up"], stride))
        x = _snake(x, params["alpha"])
        if len(params["blocks"]) < len(strides):
            return _upsample(x, params["last"], strides[-1])[:, 0]
        return F.conv1d(x, **params["last"], padding=3)[:, 0]

    def _reconstruction(self, made: torch.Tensor) -> torch.Tensor:
        """The weighted sum of `codecs.losses`."""
        wanted, weights, samples = self._wav, self._config.loss, self._wav.shape[1]
        error = made - wanted
        absolute = error.abs().sum(1) / (wanted.abs().sum(1) + losses.SILENCE * samples)
        squared = (error**2).sum(1) / ((wanted**2).sum(1) + losses.SILENCE**2 * samples)
        total = weights.absolute * absolute.mean() + weights.squared * squared.mean()
        for window, bands in self._bands.items():
            a, b = (_spectrogram(wav, window) for wav in (made, wanted))
            linear = (a - b).abs().sum((1, 2)) / (b.sum((1, 2)) + losses.SILENCE * b[0].numel())
            in_bands = [((of**2 @ bands + 1e-12).sqrt() + losses.FLOOR).log() for of in (a, b)]
            distance = (in_bands[0] - in_bands[1]).abs().mean(2)
            power = (b**2).mean(2)
            sounding, fewest = power / (power + losses.SILENCE**2), losses.FEWEST * b.shape[1]
            log = (sounding * distance).sum(1) / (sounding.sum(1) + fewest)
            silent = ((1 - sounding) * distance).sum(1) / ((1 - sounding).sum(1) + fewest)
            parts = weights.linear * linear.mean() + weights.log * log.mean() + weights.silent * silent.mean()
            total = total + parts / len(self._bands)
        return total

    def _discriminate(self, wav: torch.Tensor) -> list[list[torch.Tensor]]:
        """As `codecs.discriminators.discriminate`, of one channel, channels before the two other axes."""
        config = self._config.adversarial.discriminators
        found = []
        for layers, period in zip(self._judges["periods"], config.periods, strict=True):
            x = F.pad(wav[:, None], (0, -wav.shape[1] % period), mode="reflect")
            x = x.view(len(wav), 1, -1, period)
            found.append(_judge(layers, x, [(stride, 1) for stride in discriminators.PERIOD_STRIDES]))
        for bands, window in zip(self._judges["spectrograms"], config.windows, strict=True):
            spectrum = torch.view_as_real(_stft(wav, window)).permute(0, 3, 2, 1)  # [B, 2, T, F]
            bounds = [round(share * spectrum.shape[3]) for share in discriminators.BANDS]
            for layers, first, stop in zip(bands, bounds, bounds[1:], strict=False):
                strides = [(1, 1), (1, 2), (1, 2), (1, 1)]
                found.append(_judge(layers, spectrum[..., first:stop], strides))
        return found


class _Codebooks:
    """As `codecs.xcodec.quantizer`: straight-through gradients, codebooks as moving averages."""

    def __init__(self, embed: torch.Tensor, config: Any):
        self._embed, self._sums, self._config = embed, embed.clone(), config
        self._sizes, self._use = torch.ones_like(embed[..., 0]), torch.ones_like(embed[..., 0])

    def quantize(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Sums of codewords, the commitment, and what `move` needs."""
        flat = x.flatten(0, 1)
        with torch.no_grad():
            energy = (flat**2).mean(1)
            softest = quantizer.SOFTEST
            weight = (1 + softest) / (energy / energy.mean().clamp_min(1e-12) + softest)
        residual, total, commitment, found = flat, 0.0, 0.0, []
        for codewords in self._embed:
            with torch.no_grad():
                products = residual @ codewords.T
                codes = ((codewords**2).sum(1) - 2 * products).argmin(1)
                chosen, given = codewords[codes], residual.detach()
                sums = torch.zeros_like(codewords).index_add_(0, codes, weight[:, None] * given)
                counts = torch.bincount(codes, minlength=len(codewords)).float()
                sizes = torch.zeros_like(counts).index_add_(0, codes, weight)
                sample = given[torch.randint(len(given), (len(codewords),), device=given.device)]
            commitment = commitment + (weight[:, None] * (residual - chosen) ** 2).sum()
            residual, total = residual - chosen, total + chosen
            found.append((counts, sizes, sums, sample))
        vectors = flat + (total - flat).detach()
        learnt = tuple(torch.stack(each) for each in zip(*found, strict=True))
        return vectors.view_as(x), commitment / (len(self._embed) * flat.numel()), learnt

    def move(self, learnt: tuple[torch.Tensor, ...]) -> None:
        counts, sizes, sums, sample = learnt
        for average, new in ((self._use, counts), (self._sizes, sizes), (self._sums, sums)):
            average.lerp_(new, 1 - self._config.decay)
        mean_use, mean_size = (each.mean(1, keepdim=True) for each in (self._use, self._sizes))
        dead = self._use < self._config.dead_below * mean_use
        self._use = torch.where(dead, mean_use, self._use)
        self._sizes = torch.where(dead, mean_size, self._sizes)
        self._sums = torch.where(dead[..., None], mean_size[..., None] * sample, self._sums)
        self._embed = self._sums / (self._sizes + quantizer.SMOOTHING)[..., None]


class _Optimizer:
    """AdamW with clipped gradients."""

    def __init__(self, params: list[torch.Tensor], config: OptimizerConfig):
        self.params, self._clip = params, config.clip_norm
        self._optimizer = torch.optim.AdamW(
            params,
            lr=config.peak_lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self) -> float:
        """The norm of the gradient before it is clipped."""
        norm = torch.nn.utils.clip_grad_norm_(self.params, self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm.item()


def _snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)


def _residual_units(units: list[dict], x: torch.Tensor) -> torch.Tensor:
    for unit, dilation in zip(units, dac.UNIT_DILATIONS, strict=True):
        y = F.conv1d(
            _snake(x, unit["alpha_1"]), **unit["conv_1"], dilation=dilation, padding=dac.UNIT_KERNEL // 2 * dilation
        )
        x = x + F.conv1d(_snake(y, unit["alpha_2"]), **unit["conv_2"])
    return x


def _upsample(x: torch.Tensor, params: dict, stride: int) -> torch.Tensor:
    return F.conv_transpose1d(x, **params, stride=stride, padding=-(-stride // 2), output_padding=stride % 2)


def _judge(layers: list[dict], x: torch.Tensor, strides: list[tuple[int, int]]) -> list[torch.Tensor]:
    found = []
    for layer, stride in zip(layers, [*strides, (1, 1)], strict=True):
        padding = tuple(size // 2 for size in layer["weight"].shape[2:])
        x = F.conv2d(x, **layer, stride=stride, padding=padding)
        if len(found) < len(strides):
            x = F.leaky_relu(x, discriminators.SLOPE)
        found.append(x)
    return found


def _stft(wav: torch.Tensor, window: int) -> torch.Tensor:
    """[B, N] to [B, F, T], complex, divided by the root of the window's energy."""
    hann = torch.hann_window(window, device=wav.device)
    padded = F.pad(wav, (0, -wav.shape[1] % (window // 4)))
    return torch.stft(padded, window, window // 4, window=hann / hann.norm(), pad_mode="constant", return_complex=True)


def _spectrogram(wav: torch.Tensor, window: int) -> torch.Tensor:
    """Magnitudes [B, T, F]."""
    return (torch.view_as_real(_stft(wav, window)).square().sum(-1) + 1e-12).sqrt().mT


def _tree(params: Tree, linear_ends: bool) -> Tree:
    """Our arrays as leaves that learn, in torch's order of axes and under its names."""

    def leaf(path: tuple, value: np.ndarray) -> torch.Tensor:
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        transposed = "up" in names or (linear_ends and names[:2] == ["acoustic_decoder", "last"])
        if value.ndim == 3:  # [K, C in, C out], or an alpha [1, 1, C]
            value = value.transpose((1, 2, 0) if transposed else (2, 1, 0))
            if names[-1].startswith("alpha"):
                value = value.reshape(1, -1, 1)
        elif value.ndim == 4:  # [H, W, C in, C out]
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            value = value.T
        return torch.tensor(np.ascontiguousarray(value), device=DEVICE, requires_grad=True)

    return _named(jax.tree_util.tree_map_with_path(leaf, params))


def _named(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {"weight" if name == "kernel" else name: _named(value) for name, value in tree.items()}
    return [_named(each) for each in tree] if isinstance(tree, list) else tree


def _leaves(tree: Tree, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield name, tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, str(name))
