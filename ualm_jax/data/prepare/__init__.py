"""The job that writes a dataset: raw conversations through filters and the codec into shards."""
