"""How fast the parts of the project are on this machine, beside PyTorch's way to do the same work."""
