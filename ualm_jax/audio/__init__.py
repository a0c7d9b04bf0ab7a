"""Sound files and waveforms: reading, writing, loudness, pictures. Knows nothing of tokens or models."""
