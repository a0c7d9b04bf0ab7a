"""The reference's formulation in PyTorch, for `--against torch`; needs torch and transformers.

Written from the public UALM code's behaviour (NVIDIA/audio-intelligence, `models/ualm/lm/parallel.py`): Hugging Face's
Qwen2, a position's embedding the sum of its streams', one shared head. Its loss gathers stream 0's states for the whole
vocabulary and the other streams' sound for the codebooks' columns, by boolean masks.
How it samples: `reference_torch_decoding`; its attention: `reference_torch_attention`.
"""

import importlib.util
from collections.abc import Callable, Mapping

import numpy as np
import torch
from flax import nnx
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2Model

from ualm_jax.bench.sizes import SizedModel
from ualm_jax.models.hf_names import hf_tensors, reference, to_hf
from ualm_jax.tokens.types import Batch
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
        """The sum over all positions, as `next_token_loss`."""
        states = self.streams(self.hidden(tokens, positions)[:, :-1])
        return next_token_loss(states, self.lm_head.weight, self.audio_start, tokens[:, 1:], weights[:, 1:])


def next_token_loss(
    states: torch.Tensor, head: torch.Tensor, audio_start: int, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted sum, of states [B, T, S, D], a head [V, D], the tokens that follow and their weights [B, T, S].

    The loss is this divided by `count` of the weights.
    """
    first = torch.zeros_like(targets, dtype=torch.bool)
    first[:, :, 0] = True
    sound = ~first & (targets >= audio_start)
    losses = torch.zeros_like(weights)
    of_first = F.cross_entropy(states[first] @ head.T, targets[first], reduction="none", ignore_index=0)
    losses = losses.masked_scatter(first, of_first.float())
    logits = states[sound] @ head[audio_start:].T
    of_sound = F.cross_entropy(logits, targets[sound] - audio_start, reduction="none")
    losses = losses.masked_scatter(sound, of_sound.float())
    return (losses * weights).sum()


def count(weights: torch.Tensor) -> torch.Tensor:
    """Positions that a loss is divided by: those whose first stream counts."""
    return (weights[:, :, 0] != 0).sum()


class Parts:
    """A batch's rows in equal parts, one after the other: all at once where that fits torch's memory, else fewer."""

    def __init__(self, rows: int):
        self._rows = self.size = rows

    def add_up(self, work: Callable[[slice], float], forget: Callable[[], None]) -> float:
        """Sum of what `work` returns for each part; `forget` undoes what it has done when memory runs out."""
        while True:
            try:
                return sum(work(slice(first, first + self.size)) for first in range(0, self._rows, self.size))
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
            forget()
            torch.cuda.empty_cache()
            self.size = -(-self.size // 2)

    def notes(self) -> tuple[str, ...]:
        if self.size == self._rows:
            return ()
        return (f"torch takes the {self._rows} rows {self.size} at a time: it has no memory for more of them at once",)


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
        self._count = count(self._weights[:, 1:])
        self.parts = Parts(len(batch.tokens))
        self._params = list(self.model.parameters())
        self._masters = self._params
        if config.execution.compute_dtype != "float32":
            weights = _weights(config, params)  # as they were before they were rounded
            self._masters = [weights[name].to(DEVICE).requires_grad_() for name, _ in self.model.named_parameters()]
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
        loss = self.parts.add_up(self._add_gradients, self.model.zero_grad)
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
        return loss, norm.item()

    def _add_gradients(self, rows: slice) -> float:
        positions = None if self._positions is None else self._positions[rows]
        loss = self.model.loss(self._tokens[rows], self._weights[rows], positions) / self._count
        loss.backward()
        return loss.item()


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
        self._count = count(self._weights)
        self.parts = Parts(len(self._targets))
        self._held = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0

    def run(self) -> float:
        self._forget()
        loss = self.parts.add_up(self._add_gradients, self._forget)
        synchronize()
        return loss

    def _add_gradients(self, rows: slice) -> float:
        hidden, head, stream_emb = self._leaves
        states = _streams(hidden[rows], stream_emb)
        loss = next_token_loss(states, head, self._audio_start, self._targets[rows], self._weights[rows]) / self._count
        loss.backward()
        return loss.item()

    def _forget(self) -> None:
        for leaf in self._leaves:
            leaf.grad = None

    def temporaries(self) -> int | None:
        """Bytes beyond the inputs; None where torch does not count."""
        peak = peak_memory()
        return None if peak is None else peak - self._held


def evaluate(model: Reference, batch: Batch) -> float:
    """Loss of rows that hold one document each."""
    with torch.no_grad():
        tokens, weights = torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.loss_weights)
        return (model.loss(tokens.to(DEVICE), weights.to(DEVICE), None) / count(weights[:, 1:])).item()


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
