"""What a stack of members saves: the same training as an ordinary loop does it, and as `hs.fit` does it.

`make bench` measures and prints, and writes book/results/benchmark.json; chapter 18 reads that file.

problems.py  the training problems, and both ways to solve them
today.py     one seed at a time: a published SAM around torchdiffeq
measure.py   the two in turns: seconds of a step, peak memory, floating-point operations
machine.py   what it runs on: versions, rate of matrix products, start-up
"""
