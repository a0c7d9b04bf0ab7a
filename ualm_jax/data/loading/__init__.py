"""From datasets to batches: mixture, packing, loader."""
