"""What this CPU has that changes 8-bit results: dot-product instructions, or the pair sums that saturate without them.

x86 with AVX2 or AVX-512 but without VNNI multiplies bytes with vpmaddubsw: u8 * s8 + u8 * s8 is kept in 16 bits and
saturates, where VNNI (vpdpbusd) and AMX add in 32 bits. ONNX Runtime's kernels and OpenVINO's (oneDNN) use it; LiteRT's
XNNPACK widens to 16 bits before it multiplies, and loses nothing. Arm's kernels, with SDOT or without, are exact.
saturation.py counts which layers of a network it would change.

Source: Intel oneDNN, Developer Guide, Nuances of int8 Computations; ONNX Runtime, Quantize ONNX Models, on
reduce_range and U8U8.
"""

import platform
import subprocess
from functools import cache
from pathlib import Path

LINUX_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
"""Flag of /proc/cpuinfo -> name.

Source: Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst.
"""

MACOS_KEYS = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}
"""Key of sysctl -> name; a key that this Mac does not have is left out of its answer.

Source: Apple, Determining instruction set characteristics.
"""

ADDS_IN_32_BITS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
ADDS_IN_16_BITS = frozenset({"avx2", "avx512f"})
SYSCTL = "/usr/sbin/sysctl"


@cache
def instruction_set() -> tuple[str, ...] | None:
    """Return what this machine's CPU has of avx2, avx512f, avx512_vnni, avx_vnni, amx_int8, dotprod and i8mm.

    None where the system does not tell: an empty tuple is a CPU that has none of them.
    """
    readers = {"Linux": read_linux, "Darwin": read_macos}
    system = platform.system()
    return readers[system]() if system in readers else None


def read_linux(cpu_info: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """Return what every core has: a phone's cores may differ, and a thread may run on any of them.

    Args:
        cpu_info: What the kernel says, one paragraph for each core.
    """
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = [line.partition(":") for line in lines]
    cores = [set(value.split()) for key, _, value in pairs if key.strip() in ("flags", "Features")]
    if not cores:
        return None
    shared = set.intersection(*cores)
    return tuple(name for flag, name in LINUX_FLAGS.items() if flag in shared)


def read_macos() -> tuple[str, ...] | None:
    """Return what macOS says of its CPU."""
    try:
        told = subprocess.run([SYSCTL, *MACOS_KEYS], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_sysctl(told)


def parse_sysctl(told: str) -> tuple[str, ...] | None:
    r"""Return the instruction sets in sysctl's answer; None where it answers nothing.

    >>> parse_sysctl("hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0")
    ('dotprod',)
    """
    pairs = [line.partition(":") for line in told.splitlines()]
    known = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    return tuple(name for key, name in MACOS_KEYS.items() if known.get(key) == "1") if known else None


def saturates(found: tuple[str, ...] | None) -> bool | None:
    """Tell whether 8-bit kernels of ONNX Runtime and OpenVINO may saturate on a CPU; None where it is not known.

    Args:
        found: What `instruction_set` returns.

    >>> saturates(("avx2", "avx512f")), saturates(("avx2", "avx_vnni")), saturates(("dotprod",)), saturates(None)
    (True, False, False, None)
    """
    if found is None:
        return None
    return bool(ADDS_IN_16_BITS.intersection(found)) and not ADDS_IN_32_BITS.intersection(found)


def describe(found: tuple[str, ...] | None) -> str:
    """Return what an instruction set means for 8-bit results, as a sentence for people."""
    if found is None:
        return "Instruction set unknown: 8-bit results of ONNX Runtime and OpenVINO may differ from other CPUs'."
    names = ", ".join(found) or "none that 8-bit kernels choose by"
    if saturates(found):
        return (
            f"Instruction set: {names}, without VNNI. CAUTION: sums of two 8-bit products saturate at 16 bits in ONNX "
            "Runtime and OpenVINO; their int8 figures hold for such CPUs only. 7-bit weights prevent it."
        )
    return f"Instruction set: {names}; 8-bit products are added in 32 bits."
