"""Preferences from what a model makes: answers sampled, scored and chosen, as pairs and as examples to learn from."""
