"""Who does which unit when? A clock that ticks, for units of whole seconds; slow and obvious."""


def last_second(units: list[int], workers: int) -> int:
    """Return when all units are done that are given, in order, to the first worker that is idle."""
    waiting = list(units)
    left = [0] * workers
    second = 0
    while waiting or any(left):
        for worker in range(workers):
            while left[worker] == 0 and waiting:
                left[worker] = waiting.pop(0)
        left = [max(0, seconds - 1) for seconds in left]
        second += 1
    return second
