"""From messages to token grids: vocabulary, chat layout, delay pattern."""
