"""`ualm enhance probe`: what a file of foreign weights holds, and what of it an enhancer of ours could take."""

from ualm_jax.cli.arguments import Parser, input_file

_DESCRIPTION = """\
Lists the tensors of a safetensors file and compares their shapes with those of an enhancer of a config. Nothing is
guessed: a tensor fits where its name and shape agree, or where it is the only one left of its shape on both sides.

  ualm enhance probe published.safetensors --config configs/enhance_full.py
  ualm enhance probe published.safetensors --config configs/enhance_full.py --config.enhancer.width=1536
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm enhance probe", description=_DESCRIPTION, overrides=True)
    parser.add_argument("file", type=input_file, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--config", required=True, metavar="FILE", help="such as configs/enhance_full.py")
    args, overrides = parser.parse_with_overrides(argv)

    from ualm_jax.cli.config_file import load_config
    from ualm_jax.codecs.enhance.config import EnhancerConfig
    from ualm_jax.codecs.enhance.probe import probe
    from ualm_jax.errors import UserError
    from ualm_jax.mapping import from_mapping

    values = load_config(args.config, overrides).to_dict()
    if "enhancer" not in values:
        raise UserError(f"{args.config}: expected the configuration of an enhancer, found one without config.enhancer")
    config = from_mapping(EnhancerConfig, values["enhancer"], "config.enhancer")
    probed = probe(args.file, config)
    width = max(map(len, probed.found), default=0)
    for name, (kind, shape) in probed.found.items():
        print(f"  {name:<{width}}  {kind}  {list(shape)}")
    print(f"{args.file}: {len(probed.found)} tensors")
    for ours, theirs in probed.fits.items():
        print(f"  fits: {ours}" + ("" if ours == theirs else f" = {theirs}, alone of its shape"))
    for shape, (ours, theirs) in probed.ambiguous.items():
        print(f"  several of shape {list(shape)}: {', '.join(ours)} here, {', '.join(theirs)} there")
    for name in probed.missing:
        print(f"  missing: {name}")
    for name in probed.unknown:
        print(f"  fits nothing: {name} {list(probed.found[name][1])}")
    whole = not (probed.ambiguous or probed.missing or probed.unknown)
    print("every tensor fits" if whole else "these are not the weights of this config")
    return 0 if whole else 1
