"""What an engine is asked for, and what it made."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from ualm_jax.audio.mel import MelWindow
from ualm_jax.errors import UserError
from ualm_jax.generate import structure
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.slots import Settings
from ualm_jax.tokens.delay import undelay
from ualm_jax.tokens.types import TokenGrid
from ualm_jax.tokens.vocabulary import EOS, EOT, PAD, SPECIAL_TOKENS, Vocabulary

MODALITIES = ("audio", "text", "speech")
REFERENCE_MODALITIES = ("audio", "text", "image", "video", "toolcall")


@dataclasses.dataclass(frozen=True)
class Generated:
    """One segment of an answer.

    modality: "audio", "speech" or "text".
    tokens: audio codes [T, Q], or text ids [n] of the text vocabulary. With `reference_behaviour` audio is the
        rows [n, S] of unified ids as sampled, for they need not have the delay structure.
    end: "eos" for an answer that is over, "eot" where another segment follows, None where the limit cut it off.
    logprobs: where they were asked for, of the model for each sampled token, the end token last: [n, S], a row per
        step; 0 where a stream holds nothing.
    """

    modality: str
    tokens: Int[np.ndarray, "T Q"] | Int[np.ndarray, " n"]
    end: str | None
    logprobs: Float[np.ndarray, "n S"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One segment to make. Requests for several segments of one prompt share its object, and it is read once.

    prompt: from `tokens.layout.build_prompt`. heard: see `prompts.Heard`.
    modality: "audio", "speech", "text", or "auto": the model chooses.
    negative: a prompt that guidance leads away from, in place of the empty one.
    begun: what the segment holds already, in unified ids; given: what is known of the positions after it, 0 for nothing
        (of frames that are there as a whole, streams that lag behind). draws: noise that its seed has made before.
    slide: audio that outgrows its sequence goes on with the later half of what it has, and its prompt.
    scored: log-probabilities are wanted. until: says of the text ids so far how many of them to keep, if the text is
        over, else None. keep: its past can be followed afterwards.
    """

    prompt: TokenGrid
    params: SamplingParams = SamplingParams()
    modality: str = "audio"
    heard: Float[np.ndarray, "_ A"] | Sequence[MelWindow] | None = None
    negative: TokenGrid | None = None
    begun: Int[np.ndarray, "n S"] | None = None
    given: Int[np.ndarray, "G S"] | None = None
    draws: int = 0
    slide: bool = False
    scored: bool = False
    until: Callable[[Int[np.ndarray, " n"]], int | None] | None = None
    keep: bool = False

    def __post_init__(self):
        if self.modality not in (*MODALITIES, "auto"):
            raise UserError(f"modality must be one of {', '.join(MODALITIES)} or auto, got {self.modality!r}.")
        if self.begun is not None and self.modality not in ("audio", "speech"):
            raise ValueError(f"only audio can be continued, not {self.modality}")

    @property
    def guided(self) -> bool:
        """Whether it needs an unconditional sequence, as far as can be known before the model has chosen."""
        return self.modality != "text" and self.params.guided

    def choose(self, special_logits: Float[np.ndarray, " V"]) -> str:
        """The modality that the model likes best to open its answer with. Raises UserError for one that cannot be."""
        choices = REFERENCE_MODALITIES if self.params.reference_behaviour else MODALITIES
        name = choices[int(np.argmax(special_logits[[SPECIAL_TOKENS.index(choice) for choice in choices]]))]
        if name not in MODALITIES:
            raise UserError(f"The model chose to answer with <|{name}|>, which cannot be generated.")
        return name

    def steps(self, modality: str, vocabulary: Vocabulary) -> int:
        """The step at which the segment is cut off. Audio needs one for each frame, its delay and its end."""
        text = modality == "text"
        return self.params.max_tokens if text else self.params.max_frames + vocabulary.num_codebooks

    def settings(self, modality: str, limit: int, vocabulary: Vocabulary) -> Settings:
        """Settings of its slot, arrays without the first axis."""
        params, S, text = self.params, vocabulary.num_streams, modality == "text"

        def each(name: str, dtype) -> np.ndarray:
            return np.array(params.per_stream(f"text_{name}" if text else name, S), dtype)

        known = np.zeros((S - 1, S), np.int32)
        if self.given is not None:
            known[: len(self.given)] = self.given
        opening = SPECIAL_TOKENS.index(modality)
        first = np.zeros(S, np.int32)
        first[0] = opening
        within = self.steps(modality, vocabulary) if self.slide else limit
        most = params.max_frames if params.reference_behaviour else min(params.max_frames, within - S)
        decided = () if self.begun is None else np.flatnonzero(self.begun[:, 0] == vocabulary.audio_pad(0))
        return Settings(
            opening=np.int32(opening),
            temperature=each("temperature", np.float32),
            top_k=np.minimum(each("top_k", np.int64), 2**31 - 1).astype(np.int32),
            cfg_scale=np.array(params.per_stream("cfg_scale", S), np.float32),
            seed=np.uint32(params.seed),
            min_frames=np.int32(params.min_frames),
            max_frames=np.int32(most),
            limit=np.int32(limit),
            active=np.bool_(True),
            text=np.bool_(text),
            top_p=each("top_p", np.float32),
            min_p=each("min_p", np.float32),
            penalty=np.float32(params.text_repetition_penalty),
            enforce=np.bool_(not params.reference_behaviour),
            scored=np.bool_(self.scored),
            last=first if self.begun is None else self.begun[-1].astype(np.int32),
            step=np.int32(0 if self.begun is None else len(self.begun)),
            frames=np.int32(decided[0] if len(decided) else structure.OPEN),
            given=known,
            draws=np.int32(self.draws),
        )

    def slid(self, rows: Int[np.ndarray, "n S"], start: int, vocabulary: Vocabulary) -> "Request":
        """The request of the same audio, `rows` so far, without its positions before `start`: they are forgotten.

        What is left looks like audio from its beginning on, with the corner of the delay structure.
        """
        rows = rows[start:].copy()
        for stream in range(1, vocabulary.num_streams):
            rows[:stream, stream] = vocabulary.audio_pad(stream)
        bounds = {name: max(getattr(self.params, name) - start, 1) for name in ("min_frames", "max_frames")}
        params = dataclasses.replace(self.params, **bounds)
        return dataclasses.replace(self, params=params, begun=rows, draws=self.draws + start)


def finish(
    rows: Int[np.ndarray, "n S"], modality: str, vocabulary: Vocabulary, reference: bool
) -> tuple[np.ndarray, str | None]:
    """Tokens (see `Generated`) and end of a segment of these sampled positions, which ends with eos, eot or nowhere.

    Raises UserError for what only logits that are NaN or infinite lead to: a PAD in stream 0 (see `step.Sampled`), and
    audio without its delay structure.
    """
    if PAD in rows[:, 0]:
        raise _damaged(modality)
    ends = np.flatnonzero(np.isin(rows[:, 0], (EOS, EOT)))
    end = SPECIAL_TOKENS[rows[ends[0], 0]] if ends.size else None
    rows = rows[: ends[0]] if ends.size else rows
    if modality == "text":
        return rows[:, 0] - vocabulary.text_start, end
    if reference:
        return rows, end
    try:
        return undelay(rows, vocabulary), end
    except ValueError:
        raise _damaged(modality) from None


def _damaged(modality: str) -> UserError:
    guidance = ";" if modality == "text" else ", or sampling.cfg_scale is too large for them; lower it, or"
    return UserError(
        f"the {modality} of this answer came from logits that are NaN or infinite: the weights are damaged{guidance} "
        "use another checkpoint."
    )
