"""Exercises of chapter 18: the gain of a stack from two short trials, and the jobs of a sweep."""

from __future__ import annotations

import math

import numpy as np

from hybridsam_lite.exercises.asking import Ask, close, number, numbers, require, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch18.q1",
    "Two short trials",
    """
    `first` and `second` are two trials, each the members of a stack and the seconds of a step. Return the gain of a
    stack of `members` over training one at a time, and the largest gain that any stack can have.
    """,
    why="Two points fix the line $a + bM$. With 10 ms for one member and 50 ms for 32, $b = 1.29$ and $a = 8.71$ ms: "
    "the limit is 7.75, half of it is reached at $M = a/b$, seven members, and with 32 it is 6.4.",
    after="If the largest gain is small, no stack is worth the trouble.",
)
def gains(first: tuple[int, float], second: tuple[int, float], members: int) -> tuple[float, float]:
    """The gain of this stack, and the largest one."""
    b = (second[1] - first[1]) / (second[0] - first[0])
    a = first[1] - b * first[0]
    return members * (a + b) / (a + b * members), 1 + a / b


@gains.check
def _(ask: Ask) -> None:
    sizes = [(1, 32, 32), (1, 2, 1), (4, 16, 64), (2, 8, 100), (16, 4, 8), (8, 32, 1)]
    for m1, m2, members in sizes:
        a, b = ask.uniform(1, 9, 2).tolist()
        trials = [(m, 1e-3 * (a + b * m)) for m in (m1, m2)]
        found, largest = numbers(ask(*trials, members), "the answer", 2)
        gain, limit = members * (a + b) / (a + b * members), 1 + a / b
        if not close(found, gain, rtol=1e-5):
            _slip_gain(found, gain, a, b, m1, members)
        if not close(largest, limit, rtol=1e-5):
            _slip_limit(largest, limit, a, b)


def _slip_gain(found: float, right: float, a: float, b: float, m1: int, members: int) -> None:
    stack = a + b * members
    require(members > 1, f"A stack of one member gains nothing: its gain is 1, not {found:.3g}.")
    require(
        not close(found, members * (a + b * m1) / stack, rtol=1e-5),
        f"Your first trial had {m1} members. How long does a step take for one?",
    )
    require(not close(found, 1 / right, rtol=1e-5), "This is the time of the stack over that of one at a time.")
    require(
        not close(found, (a + b) / stack, rtol=1e-5),
        "This compares the stack with one training. It stands for as many as it has members.",
    )
    require(
        not close(found, members * a / stack, rtol=1e-5),
        "One at a time, each member pays for its bookkeeping and for its arithmetic.",
    )
    require(
        not close(found, members, rtol=1e-5) and not close(found, 1, rtol=1e-5),
        "Neither is the stack free, nor does it cost the sum. Which line goes through both trials?",
    )
    wrong(f"The gain of {members} members is wrong. (Both trials lie on a line, with a = {a:.2f} and b = {b:.2f} ms.)")


def _slip_limit(found: float, right: float, a: float, b: float) -> None:
    require(
        not close(found, a / b, rtol=1e-5),
        "The largest gain: if there were no bookkeeping at all, a stack would be as good as none. Yours would say 0.",
    )
    require(
        not close(found, 1 + b / a, rtol=1e-5), "The largest gain: the more bookkeeping, the larger, not the smaller."
    )
    require(found < right, f"No stack gains as much as {found:.3g}, however large it is.")
    wrong(
        "The largest gain: there are stacks that gain more. What becomes of the gain if the members grow without end?"
    )


@question(
    "ch18.q2",
    "Cut a sweep into jobs",
    """
    `members` trainings are cut into jobs of $M$ members each, at most `limit`. A step of a job takes $a + bM$;
    `processes` jobs run at a time, each on a core of its own, then the next ones. (The last job may be smaller; let it
    cost as much.) Which whole number $M$ makes the sweep shortest?
    """,
    why="Not always the largest stack: 60 members on two cores go best as two stacks of 30, which pay $a$ twice, but "
    "at the same time. One stack of 60 with two threads would at best halve $b$, the same $a + 30\\,b$, and reach it "
    "only if every operation were worth dividing.",
    after="Use cores for further stacks first.",
)
def members_of_a_job(members: int, processes: int, limit: int, a: float, b: float) -> int:
    """The members of a job, from 1 to limit; if several are best, any of them."""
    rounds = {M: np.ceil(members / (M * processes)) for M in range(1, limit + 1)}
    return min(rounds, key=lambda M: rounds[M] * (a + b * M))


@members_of_a_job.check
def _(ask: Ask) -> None:
    cases = [(60, 2, 40, 9.0, 1.0), (60, 2, 20, 9.0, 1.0), (60, 1, 100, 9.0, 1.0), (20, 8, 40, 9.0, 1.0)]
    cases += [(50, 3, 40, 2.0, 1.0), (41, 1, 40, 1.0, 1.0), (130, 4, 40, 0.5, 2.0), (100, 7, 16, 3.0, 0.2)]
    for members, processes, limit, a, b in cases:
        M = number(ask(members, processes, limit, a, b), "the number of members")
        require(M >= 1 and M % 1 == 0, f"The members of a job should be a whole number from 1 on, got {M:g}.")
        case = f"{members} members, {processes} process{'es' * (processes > 1)}, at most {limit} in a job"
        require(limit >= M, f"{case}: your job has {M:g}.")

        def rounds(M: float, members: int = members, processes: int = processes) -> int:
            return math.ceil(math.ceil(members / M) / processes)

        best = min(rounds(m) * (a + b * m) for m in range(1, limit + 1))
        taken = rounds(M) * (a + b * M)
        if taken <= best * (1 + 1e-9):
            continue
        idle = math.ceil(members / M) < min(processes, members)
        require(not idle, f"{case}: if your job has {M:g}, some processes have nothing to do.")
        turns = f"{rounds(M)} round{'s' * (rounds(M) > 1)}"
        wrong(f"{case}, a = {a:g}, b = {b:g}: jobs of {M:g} take {turns}, {taken:g} for a step. {best:g} can be had.")
