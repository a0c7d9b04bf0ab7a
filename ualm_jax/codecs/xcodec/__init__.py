"""X-codec: 16 kHz mono, 50 frames per second, residual codes of acoustic and semantic features together."""
