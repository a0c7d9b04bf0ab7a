"""What sft_reason_7b and dpo_reason_7b learn from, in the paper's sizes (launch/recipe.md, docs/reason.md).

The paper: 500 000 enrichments and 250 000 dialogues that a text model writes from 250 000 rich captions; some 60 000
pairs of 250 000 prompts, ranked by CLAP; 60 000 reflections on what the model made after round 1; 20 000 prompts with
and without reflection. Not published, so chosen here: 5 answers to a prompt, the thresholds, the text model.

ualm reason build sft --config configs/reason_data_7b.py --model runs/ualm_7b --out data/reason_1 \
    --config.sounds=captions.jsonl --config.writer.kind=endpoint --config.writer.url=http://writer:8000/v1 \
    --config.writer.model=NAME
ualm reason build pairs --config configs/reason_data_7b.py --model runs/sft_1 --out data/pairs_1 \
    --config.sounds=captions.jsonl --config.scorer=my_scorers.py:clap ...
ualm reason build reflections ... --model runs/dpo_1 --out data/reflections
ualm reason build final ... --model runs/sft_2 --out data/pairs_2
"""

from ml_collections import ConfigDict

from ualm_jax.mapping import config_dict
from ualm_jax.reason.builders.config import BuildConfig


def get_config() -> ConfigDict:
    return config_dict(BuildConfig)
