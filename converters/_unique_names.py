"""Give out names that nothing else has, in a time that does not grow with how often a file repeats one."""


def unique(name: str, used: dict[str, int]) -> str:
    """Return the name, or with a number behind it where it is used already, and note it.

    Args:
        name: Wanted.
        used: Name -> the last number that was put behind it.
    """
    free, number = name, used.get(name, 1)
    while free in used:
        number += 1
        free = f"{name}_{number}"
    used[name] = number
    used.setdefault(free, 1)
    return free
