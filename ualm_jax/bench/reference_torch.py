"""The reference's formulation in PyTorch, for `--against torch`; needs torch and transformers.

Written from the public UALM code's behaviour (NVIDIA/audio-intelligence, `models/ualm/lm/parallel.py`): Hugging Face's
Qwen2, a position's embedding the sum of its streams', one shared head. Its loss gathers stream 0's states for the whole
vocabulary and the other streams' sound for the codebooks' columns, by boolean masks. It samples with both branches of
guidance in one batch, and computes the whole vocabulary for every stream at every step.
"""

import importlib.util
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flax import nnx
from jaxtyping import Float, Int
from torch.nn import functional as F
from transformers import DynamicCache, Qwen2Config, Qwen2Model, StaticCache

from ualm_jax.bench.sizes import SizedModel
from ualm_jax.models.hf_names import hf_tensors, reference, to_hf
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import AUDIO, EOS, EOT
from ualm_jax.train.optimizer import OptimizerConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Reference(torch.nn.Module):
    """The model, with the weights of `params` (ours, as host arrays) in the compute dtype of `config`."""

    def __init__(self, config: SizedModel, params: nnx.State):
        super().__init__()
        decoder, vocabulary = config.architecture.decoder, config.architecture.vocabulary
        self.audio_start, self.flash = vocabulary.audio_start, _has_flash(config)
        dtype = getattr(torch, config.execution.compute_dtype)
        qwen = Qwen2Config(
            vocab_size=vocabulary.size,
            hidden_size=decoder.width,
            intermediate_size=decoder.mlp_dim,
            num_hidden_layers=decoder.num_layers,
            num_attention_heads=decoder.num_heads,
            num_key_value_heads=decoder.num_kv_heads,
            rms_norm_eps=decoder.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": decoder.rope_theta},
            max_position_embeddings=1 << 20,
            pad_token_id=0,
            attn_implementation="flash_attention_2" if self.flash else "sdpa",
        )
        with torch.device(DEVICE):
            self.model = Qwen2Model(qwen)
            self.lm_head = torch.nn.Linear(decoder.width, vocabulary.size, bias=False)
            self.stream_emb = torch.nn.Embedding(vocabulary.num_streams, decoder.width)
        self.load_state_dict(_weights(config, params))
        self.to(dtype)
        if config.execution.remat != "none":
            self.model.gradient_checkpointing_enable()

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T, S] to [B, T, D]; the row of id 0 is zero."""
        return self.model.embed_tokens(tokens).sum(dim=2)

    def streams(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, D] to what each stream is predicted from, [B, T, S, D]."""
        return _streams(hidden, self.stream_emb.weight)

    def hidden(self, tokens: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Final hidden states [B, T, D]. positions: those of packed documents, which start at 0; None for one each."""
        embedded = self.embed(tokens)
        if self.flash and positions is not None:  # Hugging Face finds documents by their positions in one row alone
            flat = self.model(
                inputs_embeds=embedded.flatten(0, 1)[None], position_ids=positions.reshape(1, -1), use_cache=False
            )
            return flat.last_hidden_state.view_as(embedded)
        return self.model(inputs_embeds=embedded, position_ids=positions, use_cache=False).last_hidden_state

    def loss(self, tokens: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        states = self.streams(self.hidden(tokens, positions)[:, :-1])
        return next_token_loss(states, self.lm_head.weight, self.audio_start, tokens[:, 1:], weights[:, 1:])


def next_token_loss(
    states: torch.Tensor, head: torch.Tensor, audio_start: int, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Of states [B, T, S, D], a head [V, D], the tokens that follow and their weights [B, T, S]."""
    first = torch.zeros_like(targets, dtype=torch.bool)
    first[:, :, 0] = True
    sound = ~first & (targets >= audio_start)
    losses = torch.zeros_like(weights)
    of_first = F.cross_entropy(states[first] @ head.T, targets[first], reduction="none", ignore_index=0)
    losses = losses.masked_scatter(first, of_first.float())
    logits = states[sound] @ head[audio_start:].T
    of_sound = F.cross_entropy(logits, targets[sound] - audio_start, reduction="none")
    losses = losses.masked_scatter(sound, of_sound.float())
    return (losses * weights).sum() / (weights[:, :, 0] != 0).sum()


class Training:
    """The reference's training step: eager, AdamW, clipped gradients; in bfloat16 with float32 master weights.

    packed: rows hold several documents.
    """

    def __init__(
        self, config: SizedModel, params: nnx.State, batch: Batch, optimizer: OptimizerConfig, *, packed: bool
    ):
        self.model = Reference(config, params).train()
        self._tokens = torch.from_numpy(batch.tokens).long().to(DEVICE)
        self._weights = torch.from_numpy(batch.loss_weights).to(DEVICE)
        self._positions = torch.from_numpy(batch.positions).long().to(DEVICE) if packed else None
        self._params = list(self.model.parameters())
        self._masters = self._params
        if config.execution.compute_dtype != "float32":
            self._masters = [param.detach().float().requires_grad_() for param in self._params]
        self._clip = optimizer.clip_norm
        self._optimizer = torch.optim.AdamW(
            self._masters,
            lr=optimizer.peak_lr,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )

    def step(self) -> tuple[float, float]:
        """Loss and norm of its gradient before it is clipped."""
        loss = self.model.loss(self._tokens, self._weights, self._positions)
        loss.backward()
        if self._masters is not self._params:
            for master, param in zip(self._masters, self._params, strict=True):
                master.grad = param.grad.float()
                param.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters, self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._masters is not self._params:
            with torch.no_grad():
                torch._foreach_copy_(self._params, self._masters)
        synchronize()
        return loss.item(), norm.item()


class Decoding:
    """The reference's sampling loop for prompts [B, P, S] of equal length; every run is `steps` steps long.

    The end of a row is looked for, as the reference does, but does not stop the loop. compiled: a static cache and
    `torch.compile` of the whole step instead of a growing cache and eager calls.
    """

    def __init__(
        self,
        model: Reference,
        config: SizedModel,
        prompts: Int[np.ndarray, "B P S"],
        *,
        steps: int,
        cfg_scale: float,
        temperature: float,
        top_k: int,
        compiled: bool,
    ):
        self._model, self._mask = model.eval(), _forbidden(config)
        self._prompts = torch.from_numpy(prompts).long().to(DEVICE)
        self._steps, self._scale, self._temperature, self._top_k = steps, cfg_scale, temperature, top_k
        self._cache, self._next = None, self._step
        if compiled:
            self._cache = StaticCache(config=model.model.config, max_cache_len=prompts.shape[1] + steps)
            self._next = torch.compile(self._step, mode="reduce-overhead" if DEVICE == "cuda" else None)

    def compile(self) -> tuple[str | None, float]:
        """What went wrong with the first run, if anything did (no C++ compiler, say), and the seconds it took."""
        start = time.perf_counter()
        try:
            self.run()
        except Exception as error:
            return (str(error).strip() or type(error).__name__).splitlines()[0], time.perf_counter() - start
        return None, time.perf_counter() - start

    @torch.no_grad()
    def prefill(self) -> DynamicCache | StaticCache:
        """Both branches' caches: prompts first, then as many rows of zeros.

        Eager, the logits of every position and stream are computed too, as the reference does.
        """
        if self._cache is not None:
            self._cache.reset()
        both = torch.cat([self._prompts, torch.zeros_like(self._prompts)])
        cache = DynamicCache(config=self._model.model.config) if self._cache is None else self._cache
        output = self._model.model(inputs_embeds=self._model.embed(both), past_key_values=cache, use_cache=True)
        if self._cache is None:
            self._model.lm_head(self._model.streams(output.last_hidden_state))
        synchronize()
        return cache

    @torch.no_grad()
    def run(self) -> Int[np.ndarray, "B M S"]:
        """Prefill and all steps; the sampled unified ids."""
        cache = self.prefill()
        B, _, S = self._prompts.shape
        tokens = torch.zeros((B, 1, S), dtype=torch.long, device=DEVICE)
        tokens[:, 0, 0] = AUDIO
        ended = torch.zeros(B, dtype=torch.bool, device=DEVICE)
        rows = []
        for _ in range(self._steps):
            tokens = self._next(tokens, cache).clone()
            rows.append(tokens)
            ended |= (tokens[:, 0, 0] == EOS) | (tokens[:, 0, 0] == EOT)
            if bool(ended.all()):  # the reference would stop here; looking waits for the device, as it does there
                continue
        return torch.cat(rows, dim=1).cpu().numpy()

    def _step(self, tokens: torch.Tensor, cache: DynamicCache | StaticCache) -> torch.Tensor:
        model = self._model
        embedded = model.embed(tokens.tile(2, 1, 1))
        hidden = model.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True).last_hidden_state
        logits = model.lm_head(model.streams(hidden)).masked_fill(self._mask, float("-inf"))
        cond, uncond = logits.chunk(2)
        logits = cond * self._scale + uncond * (1 - self._scale)
        logits = logits.masked_fill(self._mask, float("-inf"))
        if self._temperature == 0:
            return logits.argmax(-1)
        best, indices = torch.topk(logits, self._top_k)
        chances = torch.softmax(best / self._temperature, dim=-1)
        chosen = torch.multinomial(chances.flatten(end_dim=-2), num_samples=1).view(chances[..., :1].shape)
        return torch.gather(indices, -1, chosen).squeeze(-1)


class Loss:
    """The reference's loss and its gradients, from the host arrays of `bench.loss`."""

    def __init__(self, arrays: Mapping[str, np.ndarray], config: SizedModel):
        dtype, D = getattr(torch, config.execution.compute_dtype), config.architecture.decoder.width
        head = np.concatenate([arrays["text_head"], arrays["audio_head"].reshape(D, -1)], axis=1).T
        self._leaves = [
            torch.tensor(array, dtype=dtype, device=DEVICE, requires_grad=True)
            for array in (arrays["hidden"], head, arrays["stream_embed"])
        ]
        self._targets = torch.tensor(arrays["targets"], dtype=torch.long, device=DEVICE)
        self._weights = torch.tensor(arrays["weights"], device=DEVICE)
        self._audio_start = config.architecture.vocabulary.audio_start
        self._held = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0

    def run(self) -> float:
        hidden, head, stream_emb = self._leaves
        states = _streams(hidden, stream_emb)
        loss = next_token_loss(states, head, self._audio_start, self._targets, self._weights)
        torch.autograd.grad(loss, self._leaves)
        synchronize()
        return loss.item()

    def temporaries(self) -> int | None:
        """Bytes beyond the inputs; None where torch does not count."""
        peak = peak_memory()
        return None if peak is None else peak - self._held


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


def evaluate(model: Reference, batch: Batch) -> float:
    """Loss of rows that hold one document each."""
    with torch.no_grad():
        tokens, weights = torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.loss_weights)
        return model.loss(tokens.to(DEVICE), weights.to(DEVICE), None).item()


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak_memory() -> int | None:
    """Bytes that torch held at most on the device; None where it does not count them."""
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


def prepare() -> str:
    """Gives float32 the GPU's fast products, as JAX does; returns what is to be said about torch's side."""
    torch.set_float32_matmul_precision("high")
    if DEVICE == "cuda":
        return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"torch ran with {threads} threads; on a busy machine fewer (OMP_NUM_THREADS) can be faster"


def _streams(hidden: torch.Tensor, stream_emb: torch.Tensor) -> torch.Tensor:
    return hidden.unsqueeze(2) + torch.cat([torch.zeros_like(stream_emb[:1]), stream_emb[1:]])


def _forbidden(config: SizedModel) -> torch.Tensor:
    """[1, 1, S, V], True where a stream may not emit: all but its own codebook, and for stream 0 eos and eot."""
    vocabulary = config.architecture.vocabulary
    mask = torch.ones(vocabulary.num_streams, vocabulary.size, dtype=torch.bool)
    for stream in range(vocabulary.num_streams):
        start = vocabulary.audio_pad(stream)
        mask[stream, start : start + vocabulary.stream_size] = False
    mask[0, [EOS, EOT]] = False
    return mask[None, None].to(DEVICE)


def _has_flash(config: SizedModel) -> bool:
    return (
        DEVICE == "cuda"
        and config.execution.compute_dtype == "bfloat16"
        and importlib.util.find_spec("flash_attn") is not None
    )


def _weights(config: SizedModel, params: nnx.State) -> dict[str, torch.Tensor]:
    """Our arrays under the reference's names, float32."""
    ours = {".".join(path): np.asarray(leaf[...], np.float32) for path, leaf in nnx.to_flat_state(params)}
    form = reference(config.architecture)
    width = config.architecture.decoder.width
    embed = ours["embed"].copy()
    embed[0] = 0
    found = {
        form.embed: embed,
        form.head: np.concatenate([ours["text_head"], ours["audio_head"].reshape(width, -1)], axis=1).T,
    }
    for name, (tensor, layer) in hf_tensors(form, config.architecture).items():
        value = ours[tensor.ours]
        found[name] = to_hf(tensor, value if layer is None else value[layer])
    return {name: torch.from_numpy(np.array(value, order="C")) for name, value in found.items()}
