"""Types of numbers in files of weights, by their names in safetensors."""

import ml_dtypes
import numpy as np

WEIGHTS = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
# Counters and flags, which codecs carry along.
DTYPES = WEIGHTS | {"I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "BOOL": np.dtype(np.bool_)}
