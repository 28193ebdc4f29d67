"""Writers of the operators that move data as Keras layers or functions of keras.ops (see _keras_writers)."""

from itertools import accumulate

from edgecnn import ops

from ._keras_writers import LayerSpec, NodeView, function


def write_slice(view: NodeView, op: ops.Slice) -> tuple[LayerSpec, ...]:
    """Write Slice as x[...]."""
    if (op.begin[0], op.step[0]) != (0, 1) or op.end[0] not in (None, view.shape[0]):
        raise view.refuse("a whole batch", f"[{op.begin[0]}:{op.end[0]}:{op.step[0]}]")
    boxes = (slice(*box) for box in zip(op.begin[1:], op.end[1:], op.step[1:], strict=True))
    return function("getitem", key=(slice(None), *boxes))


def write_resize(view: NodeView, op: ops.Resize) -> tuple[LayerSpec, ...]:
    """Write Resize as UpSampling1D..3D or keras.ops.image.resize; other coordinates were lowered before."""
    if op.coordinates == "asymmetric":
        factors = tuple(new // old for new, old in zip(op.size, view.sizes, strict=False))
        return (
            LayerSpec(
                class_name=f"UpSampling{len(op.size)}D", config={"size": factors if len(factors) > 1 else factors[0]}
            ),
        )
    return function("image.resize", size=op.size, interpolation=op.method)


def write_concat(view: NodeView, op: ops.Concat) -> tuple[LayerSpec, ...]:
    """Write Concat."""
    if op.axis == 0:
        raise view.refuse("an axis behind the batch", "axis=0")
    return (LayerSpec(class_name="Concatenate", config={"axis": op.axis}),)


def write_pad(view: NodeView, op: ops.Pad) -> tuple[LayerSpec, ...]:
    """Write a Pad with zeros in space as ZeroPadding1D..3D, another one as a function."""
    spatial = op.padding[1:-1]
    if any(op.padding[0]):
        raise view.refuse("no padding of the batch", op.padding)
    if op.mode != "constant":
        return function("pad", pad_width=[list(pair) for pair in op.padding], mode=op.mode)
    if op.value != 0 or any(op.padding[-1]) or not 1 <= len(spatial) <= 3:
        return function("pad", pad_width=[list(pair) for pair in op.padding], constant_values=op.value)
    amount = spatial[0] if len(spatial) == 1 else spatial
    return (LayerSpec(class_name=f"ZeroPadding{len(spatial)}D", config={"padding": amount}),)


def write_reshape(view: NodeView, op: ops.Reshape) -> tuple[LayerSpec, ...]:
    """Write Reshape, as Flatten where it is one."""
    source = view.shape
    if op.shape[0] not in (None, source[0]):
        raise view.refuse("a first axis that stays the batch", f"{source} to {op.shape}")
    if len(op.shape) == 2 and len(source) > 2:
        return (LayerSpec(class_name="Flatten"),)
    return (LayerSpec(class_name="Reshape", config={"target_shape": op.shape[1:]}),)


def write_transpose(view: NodeView, op: ops.Transpose) -> tuple[LayerSpec, ...]:
    """Write Transpose as Permute."""
    if op.permutation[0] != 0:
        raise view.refuse("a permutation that leaves the batch first", op.permutation)
    return (LayerSpec(class_name="Permute", config={"dims": op.permutation[1:]}),)


def write_split(view: NodeView, op: ops.Split) -> tuple[LayerSpec, ...]:
    """Write Split."""
    if op.axis == 0:
        raise view.refuse("an axis behind the batch", "axis=0")
    places = list(accumulate(op.sizes[:-1]))
    return function("split", indices_or_sections=places or 1, axis=op.axis)


def write_gather(view: NodeView, op: ops.Gather) -> tuple[LayerSpec, ...]:
    """Write Gather; a constant table has no batch."""
    if op.axis == 0 and not view.graph.tensors[view.node.inputs[0]].is_constant:
        raise view.refuse("an axis behind the batch", "axis=0")
    return function("take", axis=op.axis)


def write_tile(view: NodeView, op: ops.Tile) -> tuple[LayerSpec, ...]:
    """Write Tile."""
    if op.multiples[0] != 1:
        raise view.refuse("a batch that is not repeated", op.multiples)
    return function("tile", repeats=list(op.multiples))
