"""How fast a model can be and is: FLOPs and bytes by formula, rooflines, compiling for machines far away."""
