"""The configuration of an enhancer's training: `configs/enhance_*.py` outside, dataclasses that check themselves."""

import dataclasses

from ualm_jax.codecs.enhance.config import EnhancerConfig
from ualm_jax.codecs.losses import check_windows
from ualm_jax.data.loading.pairs import DegradationConfig
from ualm_jax.errors import UserError
from ualm_jax.fields import Count, NotNegative, check_fields
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.gan import AdversarialConfig
from ualm_jax.train.optimizer import OptimizerConfig
from ualm_jax.train.waveform_config import CropsConfig, WaveformEvalConfig, WaveformTrainConfig, check_optimizers


@dataclasses.dataclass(frozen=True)
class EnhanceLossConfig:
    """Weights of the reconstruction (`codecs.stereo_losses`): spectral convergence and log distance of mid and side
    with `windows` (samples), log-mel distance with mel_windows and as many mel_bands, error of the level difference in
    dB.
    divergence: weight of the latents' from the normal distribution.
    """

    convergence: NotNegative = 1.0
    log: NotNegative = 1.0
    mel: NotNegative = 1.0
    level: NotNegative = 0.02
    divergence: NotNegative = 1e-4
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    mel_windows: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64, 32)
    mel_bands: tuple[Count, ...] = (320, 160, 80, 40, 20, 10, 5)

    def __post_init__(self):
        check_fields(self, "loss")
        check_windows(self.windows, "loss.windows", least=32)
        check_windows(self.mel_windows, "loss.mel_windows", least=32)
        if len(self.mel_windows) != len(self.mel_bands):
            raise UserError(
                f"loss.mel_windows and loss.mel_bands must be as many, got {self.mel_windows} and {self.mel_bands}."
            )


@dataclasses.dataclass(frozen=True)
class EnhanceRunConfig:
    """Everything that is needed to train an enhancer again."""

    enhancer: EnhancerConfig
    optimizer: OptimizerConfig
    train: WaveformTrainConfig
    data: CropsConfig = CropsConfig()
    pairs: DegradationConfig = DegradationConfig()
    loss: EnhanceLossConfig = EnhanceLossConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    judges_optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    eval: WaveformEvalConfig = WaveformEvalConfig()

    def __post_init__(self):
        check_optimizers(optimizer=self.optimizer, judges_optimizer=self.judges_optimizer)
        if self.data.folder is None and self.data.language != 2:
            raise UserError(f"data.language must be 2, which alone is rendered in stereo, got {self.data.language}.")
