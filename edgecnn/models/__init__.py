"""The zoo: one family per file, the paper's table as rows and a builder; the registry name is the function's name."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "lenet5": ("lenet5",),
    "alexnet": ("alexnet",),
    "vgg": ("vgg16",),
    "googlenet": ("googlenet",),
    "resnet": ("resnet18", "resnet34", "resnet50"),
    "mobilenet_v1": ("mobilenet_v1",),
    "mobilenet_v2": ("mobilenet_v2",),
    "mobilenet_v3": (
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "mobilenet_v3_large_minimalistic",
        "mobilenet_v3_small_minimalistic",
    ),
    "efficientnet": ("efficientnet", *(f"efficientnet_b{number}" for number in range(8))),
    "efficientnet_lite": tuple(f"efficientnet_lite{number}" for number in range(5)),
}
"""Module -> the networks that it builds."""

BUILTIN = {name: f"edgecnn.models.{module}:{name}" for module, names in FAMILIES.items() for name in names}
