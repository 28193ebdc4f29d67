"""Where a figure was measured: CPU, instruction sets, cores, governor, load, system."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

INSTRUCTION_SETS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "neon",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "asimdhp": "fp16",
    "bf16": "bf16",
}
"""Linux's flag -> the name that people use: what integer and reduced-precision kernels choose by.

Source: Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst.
"""

CPU_INFO = "proc/cpuinfo"
CGROUP_QUOTA = "sys/fs/cgroup/cpu.max"
GOVERNOR = "sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"
MODEL_KEYS = ("model name", "Model", "Hardware")
"""Lines of /proc/cpuinfo that name the CPU, best first (x86, then Arm boards)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A machine as a process sees it; None where the system does not tell.

    Attributes:
        cpu: Its model.
        instruction_sets: Those of INSTRUCTION_SETS that it has.
        cores: Cores that this process may use: its affinity, or a container's quota where that is smaller.
        governor: Of the CPU frequency, on the first of these cores.
        load_average: Runnable processes, mean of the last minute.
        system: Operating system and architecture.
        python: Version.
    """

    cpu: str
    instruction_sets: tuple[str, ...] | None
    cores: float
    governor: str | None
    load_average: float | None
    system: str
    python: str


def read_environment(root: Path = Path("/")) -> Environment:
    """Return what this machine tells about itself; only reads.

    Args:
        root: Where /proc and /sys hang.
    """
    lines = _cpu_lines(root)
    flags = lines.get("flags") or lines.get("Features")
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    quota = _quota(root)
    return Environment(
        cpu=next((lines[key] for key in MODEL_KEYS if key in lines), platform.processor() or platform.machine()),
        instruction_sets=None if flags is None else instruction_sets(flags),
        cores=len(affinity) if quota is None else min(len(affinity), quota),
        governor=_read(root / GOVERNOR.format(core=affinity[0])),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def instruction_sets(flags: str) -> tuple[str, ...]:
    """Return the instruction sets that matter, out of the flags of /proc/cpuinfo.

    >>> instruction_sets("fpu avx2 asimd neon sse")
    ('avx2', 'neon')
    """
    words = set(flags.split())
    return tuple(dict.fromkeys(name for flag, name in INSTRUCTION_SETS.items() if flag in words))


def show_environment(environment: Environment) -> str:
    """Return the environment on one line, for people."""
    sets = environment.instruction_sets
    known = "instruction sets unknown" if sets is None else ", ".join(sets) or "no special instruction sets"
    load = "unknown" if environment.load_average is None else f"{environment.load_average:.2f}"
    return (
        f"{environment.cpu}, {environment.cores:g} cores, {known}; governor {environment.governor or 'unknown'}, "
        f"load {load}; {environment.system}; Python {environment.python}"
    )


def _cpu_lines(root: Path) -> dict[str, str]:
    """Return key -> value of /proc/cpuinfo, of the first core that has the key."""
    pairs = [line.partition(":") for line in (_read(root / CPU_INFO) or "").splitlines()]
    return {key.strip(): value.strip() for key, colon, value in reversed(pairs) if colon}


def _quota(root: Path) -> float | None:
    """Return the cores that a container may use (cgroup v2: microseconds per period), or None where it may use all."""
    words = (_read(root / CGROUP_QUOTA) or "max").split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
