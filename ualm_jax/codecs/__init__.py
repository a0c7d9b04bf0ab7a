"""Audio codecs: waveforms to codes and back. Nothing here knows of the language model."""
