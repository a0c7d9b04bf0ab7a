"""Readers: raw data in every form it comes in, to conversations of texts and sounds."""
