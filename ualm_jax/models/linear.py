"""Products with kernels that are split over fsdp: gathered where they are used, their gradients scattered."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Num

from ualm_jax.models.fp8 import COTANGENTS, VALUES, Rounded, einsum, rounded
from ualm_jax.parallel.sharding import RULES, reshard, spec


def linear(
    x: Float[Array, "B T I"], kernel: Float[Array, "I O"], axes: tuple[str, str], fp8: bool = False
) -> Float[Array, "B T O"]:
    """x @ kernel, both of one dtype. axes: logical axes of the kernel, of which one is "embed". fp8: see `models.fp8`.

    Gathered by hand: left to the partitioner, a product with a matrix split along the summed axis becomes a ring of
    small products, which takes ten times as long to compile. The gradient is written out for two reasons. The
    partitioner sums a kernel's gradient on all devices and then cuts it, on some meshes: twice the bytes of a
    reduce-scatter. And JAX would make it as (g^T x)^T, for which XLA turns g in memory on a CPU; x is the smaller one
    to turn where a kernel widens. Rematerialisation sees no product in here, so what comes out has a name.
    """
    return checkpoint_name(_product(x, kernel, axes, fp8), "product")


class Int8Kernel(nnx.Module):
    """A kernel as integers from -127 to 127 and one float32 scale per layer and output; stands where a Param stood.

    inputs: the axes of the kernel that products sum over.
    """

    def __init__(self, kernel: Float[Array, "L ..."], inputs: tuple[int, ...]):
        kernel = kernel.astype(jnp.float32)
        largest = jnp.max(jnp.abs(kernel), axis=inputs, keepdims=True)
        scale = jnp.where(largest > 0, largest, 1) / 127
        self.values = nnx.Param(jnp.round(kernel / scale).astype(jnp.int8))
        self.scale = nnx.Param(scale)

    def astype(self, dtype) -> Array:
        """The kernel again, each weight off by at most half a step."""
        return (self.values.astype(jnp.float32) * self.scale[...]).astype(dtype)


def apply_kernel(
    x: Float[Array, "B T I"],
    kernel: nnx.Variable | nnx.Module,
    axes: tuple[str, str],
    *,
    inputs: int = 1,
    fp8: bool = False,
) -> Float[Array, "B T O"]:
    """x @ kernel, in the dtype of x, with the kernel's first `inputs` axes as one and the others as one.

    kernel: a parameter or what stands for one (`LoraKernel`, or `Int8Kernel`, of which fp8 changes nothing).
    """
    if not isinstance(kernel, Int8Kernel):
        return linear(x, _matrix(kernel.astype(x.dtype), axes, inputs), axes, fp8)
    # Scaled behind the product, which on a GPU then reads integers from memory; scaled before it, a kernel of x's dtype
    # would be written and read once more. Sums are float32 until they are scaled.
    values = _gathered(_matrix(kernel.values[...], axes, inputs), axes).astype(x.dtype)
    scale = jnp.reshape(kernel.scale[...], (-1,), out_sharding=spec(axes[1]))
    scale = reshard(scale, None if axes[1] == "embed" else axes[1])
    out = dict(preferred_element_type=jnp.float32, out_sharding=_activations(axes[1]))
    return checkpoint_name((jnp.einsum("bti,io->bto", x, values, **out) * scale).astype(x.dtype), "product")


def _matrix(kernel: Array, axes: tuple[str, str], inputs: int) -> Num[Array, "I O"]:
    """Several axes of heads as one: XLA turns kernels that have several."""
    size = math.prod(kernel.shape[:inputs])
    return jnp.reshape(kernel, (size, -1), out_sharding=spec(*axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, kernel, axes, fp8):
    x, kernel = _operand(x, VALUES, fp8), _gathered(_operand(kernel, VALUES, fp8), axes)
    return einsum("bti,io->bto", x, kernel, out_sharding=_activations(axes[1]))


def _forward(x, kernel, axes, fp8):
    return _product(x, kernel, axes, fp8), (x, kernel)


def _backward(axes, fp8, residuals, g):
    x, kernel = (_operand(array, VALUES, fp8) for array in residuals)
    g = _operand(g, COTANGENTS, fp8)

    def kernel_grad(x, g):
        grad = einsum("bti,bto->io", x, g)
        grad = jax.lax.psum_scatter(grad, RULES["embed"], scatter_dimension=axes.index("embed"), tiled=True)
        return jax.lax.psum(grad, [axis for axis in RULES["batch"] if axis != RULES["embed"]])

    specs = tuple(map(_activations, axes))
    dx = einsum("bto,io->bti", g, _gathered(kernel, axes), out_sharding=specs[0])
    in_specs = tuple(Rounded(one, jax.P()) for one in specs) if fp8 else specs
    return dx, jax.shard_map(kernel_grad, in_specs=in_specs, out_specs=spec(*axes), check_vma=False)(x, g)


_product.defvjp(_forward, _backward)


def _operand(array, dtype, fp8):
    return rounded(array, dtype) if fp8 else array


def _gathered(kernel, axes):
    if isinstance(kernel, Rounded):  # a byte of each number travels
        return kernel._replace(values=_gathered(kernel.values, axes))
    return reshard(kernel, *(None if axis == "embed" else axis for axis in axes))


def _activations(axis: str) -> jax.P:
    """How [B, T, axis] is split: the width of the model is whole, the batch has its mesh axis."""
    return spec("batch", None, None if axis == "embed" else axis)
