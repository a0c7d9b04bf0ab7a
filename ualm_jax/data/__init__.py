"""From sounds on disk to batches: sources of captioned sounds, shards of conversations, mixtures, packing."""
