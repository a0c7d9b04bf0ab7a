"""The `ualm` command: one thin module per verb."""
