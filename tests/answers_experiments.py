"""Answers to the exercises of the experiments, chapters 7 to 12."""

# Exercise, wrong answer, a fragment of what the student must hear.
WRONG = [
    ("ch07.q1", "def f(q, p, omega2, alpha): return omega2", "This is the truth"),
    (
        "ch07.q1",
        "def f(q, p, omega2, alpha): s = torch.sin(q); return float(omega2 - alpha * (p @ s) / (s @ s))",
        "wrong side",
    ),
    ("ch07.q1", "def f(q, p, omega2, alpha): return 50.0", "wrong side|needs a smaller network"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return (theta0 - omega2) / tolerance - 1", "negative"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return abs(theta0 - omega2) / tolerance", "smaller ratio"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return 1.0", "leaves an error"),
    ("ch08.q1", "def f(x, v, missing): return -SOLUTION(x, v, missing)", "but for its sign"),
    ("ch08.q1", "def f(x, v, missing): return SOLUTION(x, v, missing).flip(0)", "in this order"),
    (
        "ch08.q1",
        """
        def f(x, v, missing):
            known, s = torch.stack([-x, -x**3], 1), missing(x, v)
            return (known.T @ s) / (known**2).sum(0)
        """,
        "line and cubic look alike",
    ),
    (
        "ch08.q1",
        "def f(x, v, missing): return torch.stack([-x, -x**3]) @ missing(x, v)",
        "listed twice",
    ),
    ("ch08.q1", "def f(x, v, missing): return torch.zeros(2)", "leaves the network a mean square"),
    ("ch08.q1", "def f(x, v, missing): return SOLUTION(x, v, missing)[0]", r"shape \(2,\)"),
    (
        "ch08.q1",
        """
        def f(x, v, missing):
            known = torch.stack([-x, -x**3, -v], 1)
            return torch.linalg.lstsq(known, missing(x, v)[:, None]).solution[:2, 0]
        """,
        "leaves the network a mean square",
    ),
    ("ch08.q2", "def f(alpha, beta, share): return share * alpha / (0.75 * abs(beta))", "square of the amplitude"),
    ("ch08.q2", "def f(alpha, beta, share): return (share * alpha / abs(beta)) ** 0.5", "number is not"),
    ("ch08.q2", "def f(alpha, beta, share): return (share / (0.75 * abs(beta))) ** 0.5", "share of alpha"),
    ("ch08.q2", "def f(alpha, beta, share): return math.sqrt(share * alpha / (0.75 * beta))", "math domain error"),
    ("ch08.q2", "def f(alpha, beta, share): return (share * alpha / (0.75 * beta)) ** 0.5", "spring that softens"),
    ("ch08.q2", "def f(alpha, beta, share): return 1.0", "more than the 5.00% allowed"),
    ("ch08.q2", "def f(alpha, beta, share): return 0.01", "may swing harder"),
    ("ch09.q1", "def f(kernel, delta, h): return kernel", "that was there"),
    ("ch09.q1", "def f(kernel, delta, h): return SOLUTION(0 * kernel, delta, h)", "should go on"),
    ("ch09.q1", "def f(kernel, delta, h): return 2 * kernel - SOLUTION(kernel, delta, h)", "twice as large"),
    ("ch09.q1", "def f(kernel, delta, h): return SOLUTION(kernel, delta, 1.0)", "not the right size"),
    (
        "ch09.q1",
        """
        def f(kernel, delta, h):
            pattern = torch.ones(3, 3)
            pattern[1, 1] = -4
            return kernel + delta / h**2 * pattern
        """,
        "the same everywhere",
    ),
    (
        "ch09.q1",
        """
        def f(kernel, delta, h):
            pattern = torch.ones(3, 3)
            pattern[1, 1] = -8
            return kernel + delta / h**2 * pattern
        """,
        "a field of noise",
    ),
    (
        "ch09.q1",
        """
        def f(kernel, delta, h):
            kernel += delta / h**2
            return kernel
        """,
        "in place",
    ),
    (
        "ch09.q2",
        """
        def f(before, after, dt, laplacian):
            lap, rate = laplacian(before), (after - before) / dt
            return (lap * rate).sum() / (lap * lap).sum()
        """,
        "Alone, diffusion",
    ),
    (
        "ch09.q2",
        """
        def f(before, after, dt, laplacian):
            columns = torch.stack([laplacian(before).flatten(), before.flatten()], 1)
            return torch.linalg.lstsq(columns, (after - before).reshape(-1, 1) / dt).solution[0]
        """,
        "what you leave out goes elsewhere",
    ),
    (
        "ch09.q2",
        "def f(before, after, dt, laplacian): return dt * SOLUTION(before, after, dt, laplacian)",
        "in a frame",
    ),
    ("ch09.q2", "def f(before, after, dt, laplacian): return -SOLUTION(before, after, dt, laplacian)", "wrong sign"),
    ("ch09.q2", "def f(before, after, dt, laplacian): return 5e-3", "bumps (grow|shrink) at the rate"),
    ("ch10.q1", "def f(omega2, amplitude, c): return c**2 * omega2", "the clock runs as it did"),
    ("ch10.q1", "def f(omega2, amplitude, c): return omega2", "right for small swings only"),
    (
        "ch10.q1",
        "def f(omega2, amplitude, c): return omega2 * (1 + (c**2 - 1) * amplitude**2 / 8)",
        "beginning of a series",
    ),
    ("ch10.q1", "def f(omega2, amplitude, c): return omega2**2 / SOLUTION(omega2, amplitude, c)", "wrong side"),
    (
        "ch10.q1",
        "def f(omega2, amplitude, c): return (omega2 * SOLUTION(omega2, amplitude, c)) ** 0.5",
        "theta doubles",
    ),
    ("ch10.q1", "def f(omega2, amplitude, c): return 1.0966", "Without a stretch"),
    (
        "ch10.q1",
        """
        from scipy.special import ellipk
        def f(omega2, amplitude, c):
            return omega2 * (ellipk(np.sin(c * amplitude / 2)) / ellipk(np.sin(amplitude / 2))) ** 2
        """,
        "the clock runs|the true period is",
    ),
    ("ch10.q2", "def f(film): return ((film - film.flip(0)) ** 2).mean()", "either"),
    ("ch10.q2", "def f(film): return ((film - film.flip(0)) ** 2).mean() / 2", "either"),
    ("ch10.q2", "def f(film): return ((film - film.mean(0)) ** 2).mean()", "one still picture"),
    ("ch10.q2", "def f(film): return ((film - film.flip(2)) ** 2).mean() / 4", "goes back exactly as it came"),
    ("ch10.q2", "def f(film): return ((film - film.flip(0)) ** 2).sum() / 4", "This is a sum"),
    ("ch10.q2", "def f(film): return 0.0", "Less than the best decoder"),
    ("ch11.q1", "def f(W, b, c, s, m): return W, b", "what they were"),
    ("ch11.q1", "def f(W, b, c, s, m): return W / s, b", "belongs into the bias"),
    ("ch11.q1", "def f(W, b, c, s, m): return W * s, b", "wrong way"),
    ("ch11.q1", "def f(W, b, c, s, m): return W / s", "two things"),
    ("ch11.q2", "def f(estimates, labelled, truths): return estimates", "not been changed"),
    (
        "ch11.q2",
        "def f(estimates, labelled, truths): return estimates + (truths - estimates[labelled]).mean()",
        "still wrong",
    ),
    (
        "ch11.q2",
        """
        def f(estimates, labelled, truths):
            x = estimates[labelled]
            return truths.mean() + (estimates - x.mean()) * (truths.std() / x.std())
        """,
        "falling, as in a mirrored encoder",
    ),
    (
        "ch11.q2",
        """
        def f(estimates, labelled, truths):
            x = estimates[labelled]
            slope = (truths[1] - truths[0]) / (x[1] - x[0])
            return truths[0] + slope * (estimates - x[0])
        """,
        "smaller sum of squares",
    ),
    ("ch12.q1", "def f(a, b): return float(torch.arccos((a @ b) / (a.norm() * b.norm()) / (1 + 1e-12)))", "radians"),
    ("ch12.q1", "def f(a, b): return float(torch.rad2deg(torch.arccos((a / a.norm()) @ (b / b.norm()))))", "rounding"),
    ("ch12.q1", "def f(a, b): return float((a - b).norm())", "no angle between them"),
    ("ch12.q1", "def f(a, b): return math.degrees(math.acos(min(1.0, float(a @ b))))", "no angle between them"),
    ("ch12.q2", "def f(color, degrees): return degrees / 90", "asked were"),
    ("ch12.q2", "def f(color, degrees): return degrees", "between 0 and 1"),
    ("ch12.q2", "def f(color, degrees): return 1 - SOLUTION(color, degrees)", "share of the colour"),
]

ALSO_RIGHT = [
    (
        "ch08.q1",
        """
        def f(x, v, missing):
            known, s = np.stack([-x, -(x**3)], 1), np.asarray(missing(x, v))
            return tuple(np.linalg.solve(known.T @ known, known.T @ s))
        """,
    ),
    (
        "ch08.q2",
        """
        def f(alpha, beta, share):
            x = np.cos(np.linspace(0, 2 * np.pi, 10_000))
            A = np.linspace(0, 10, 1_000_001)
            off = abs(beta) * A**2 * (x**4).mean() / (x**2).mean()
            return A[off <= share * alpha * (1 + 1e-3)].max()
        """,
    ),
    (
        "ch09.q1",
        """
        def f(kernel, delta, h):
            new = kernel.clone()
            for i, j in ((0, 1), (1, 0), (1, 2), (2, 1)):
                new[i, j] += delta / h**2
                new[1, 1] -= delta / h**2
            return new.tolist()
        """,
    ),
    (
        "ch09.q2",
        """
        from scipy.fft import dctn
        def f(before, after, dt, laplacian):
            one, two, bent = (dctn(x.numpy(), axes=(-2, -1)) for x in (before, after, laplacian(before)))
            square = (one**2).mean(0)
            lam, gain = -(bent * one).mean(0) / square, (two * one).mean(0) / square
            return -np.polyfit(lam.ravel()[1:], np.log(gain).ravel()[1:] / dt, 1)[0]
        """,
    ),
    (
        "ch10.q1",
        """
        def f(omega2, amplitude, c):
            def quarter(A):
                y, t, dt = np.array([A, 0.0]), 0.0, 1e-3
                rate = lambda y: np.array([y[1], -np.sin(y[0])])
                while True:
                    new = y + dt * rate(y + dt / 2 * rate(y))
                    if new[0] < 0:
                        return t + dt * y[0] / (y[0] - new[0])
                    y, t = new, t + dt
            return omega2 * (quarter(c * amplitude) / quarter(amplitude)) ** 2
        """,
    ),
    (
        "ch10.q2",
        """
        def f(film):
            half = len(film) // 2
            before, after = film[:half], film[half + 1 :].flip(0)
            pairs = torch.stack([before, after]).var(0, correction=0).sum()
            return 2 * pairs / film.numel()
        """,
    ),
]
