"""For tests of watched training: `hs.fit` that takes a step only when the test lets it."""

import queue
import threading

import hybridsam_lite as hs

SECONDS = 60  # until a test gives a thread up; none waits so long unless it fails


class Gate:
    """`fit` takes the first step, and a further one for each `let`; `done` holds those that were taken.

    As a context it leaves no training behind, which would keep its turn for good.
    """

    def __init__(self):
        self.done, self._allowed = queue.Queue(), threading.Semaphore(0)

    def fit(self, *arguments, callback, **options):
        def gated(training):
            callback(training)
            self.done.put(training.step)
            if not self._allowed.acquire(timeout=SECONDS):
                raise TimeoutError("the test let no further step happen")

        return hs.fit(*arguments, callback=gated, **options)

    def let(self, steps=1):
        """Let so many steps happen."""
        self._allowed.release(steps)

    def step(self):
        """Let one step happen; which one it was."""
        self.let()
        return self.done.get(timeout=SECONDS)

    def join(self):
        """Wait until no training is left."""
        for thread in threading.enumerate():
            if thread.name == "hybridsam training":
                thread.join(SECONDS)
                assert not thread.is_alive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.let(10_000)
        self.join()
