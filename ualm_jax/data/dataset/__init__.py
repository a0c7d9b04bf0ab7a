"""A dataset on disk: its folder, its records and how long each is."""
