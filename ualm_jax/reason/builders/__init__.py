"""The data that teaches a model to think about sounds: two rounds of conversations and pairs."""
