"""Answers to the exercises of practice, chapters 13 to 19."""

# Exercise, wrong answer, a fragment of what the student must hear.
WRONG = [
    (
        "ch13.q1",
        """
        def f(losses):
            return min(losses, key=lambda s: np.mean(losses[s]))
        """,
        "1000 times larger|a larger setting",
    ),
    (
        "ch13.q1",
        """
        def f(losses):
            best = min(losses, key=lambda s: np.mean(losses[s]))
            error = np.std(losses[best], ddof=1) / len(losses[best]) ** 0.5
            return max(s for s in losses if np.mean(losses[s]) <= np.mean(losses[best]) + error)
        """,
        "more than a standard error",
    ),
    ("ch13.q1", "def f(losses): return max(losses)", "more than a standard error"),
    ("ch13.q1", "def f(losses): return 7.0", "one of the settings"),
    ("ch14.q1", "def f(network, x, count): return True", "Try weights"),
    ("ch14.q1", "def f(network, x, count): return False", "It is"),
    (
        "ch14.q1",
        """
        def f(network, x, count):
            w = torch.randn(count)
            return torch.allclose(network(x, 2 * w), 2 * network(x, w))
        """,
        "with a constant",
    ),
    (
        "ch14.q1",
        """
        def f(network, x, count):
            return torch.allclose(network(x, torch.ones(count)), network(x, torch.zeros(count)) + x)
        """,
        "linear in its weights",
    ),
    ("ch14.q2", "def f(gain, u, v): return 1 / gain**2", "loud network"),
    ("ch14.q2", "def f(gain, u, v): return 1 / SOLUTION(gain, u, v)", "the inverse"),
    ("ch14.q2", "def f(gain, u, v): return 2.0", "should be 1"),
    ("ch14.q2", "def f(gain, u, v): return 1 / gain", "another factor"),
    ("ch15.q1", "def f(method, erm): return np.log(SOLUTION(method, erm))", "still a logarithm"),
    ("ch15.q1", "def f(method, erm): return SOLUTION(erm, method)", "plain training's error over"),
    (
        "ch15.q1",
        """
        def f(method, erm):
            drawn = np.random.default_rng(0).integers(len(erm), size=(2, 5000, len(erm)))
            ratios = np.median(method[drawn[0]], 1) / np.median(erm[drawn[1]], 1)
            return np.median(method) / np.median(erm), *np.quantile(ratios, [0.025, 0.975])
        """,
        "compared seed by seed",
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            d = np.log(method / erm)
            error = d.std(ddof=1) / len(d) ** 0.5
            return np.exp([d.mean(), d.mean() - 1.96 * error, d.mean() + 1.96 * error])
        """,
        "This is a mean",
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            return np.exp(np.quantile(np.log(method / erm), [0.5, 0.025, 0.975]))
        """,
        "how far the seeds lie apart",
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            d, generator = np.log(method / erm), np.random.default_rng(0)
            medians = [np.median(generator.permutation(d)) for _ in range(500)]
            return np.exp([np.median(d), *np.quantile(medians, [0.025, 0.975])])
        """,
        "no width",
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            d = np.log(method / erm)
            drawn = np.random.default_rng(0).integers(len(d), size=(5000, len(d)))
            return np.exp([np.median(d), *np.quantile(np.median(d[drawn], 1), [0.25, 0.75])])
        """,
        "too narrow",
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            drawn = np.random.default_rng(0).integers(len(erm), size=(2, 5000, len(erm)))
            d = np.median(np.log(method[drawn[0]]) - np.log(erm[drawn[1]]), 1)
            return np.exp([np.median(np.log(method / erm)), *np.quantile(d, [0.025, 0.975])])
        """,
        "drawn together",
    ),
    ("ch15.q2", "def f(every, part, rho_k, rho): return rho_k**2 / every / rho**2", "equal steps"),
    ("ch15.q2", "def f(every, part, rho_k, rho): return SOLUTION(every, part, rho_k, rho) * rho / rho_k", "power"),
    ("ch15.q2", "def f(every, part, rho_k, rho): return SOLUTION(every, 1, rho_k, rho)", "less than a pass"),
    (
        "ch15.q2",
        "def f(every, part, rho_k, rho): return every * SOLUTION(every, part, rho_k, rho)",
        "not disturb at all",
    ),
    ("ch15.q2", "def f(every, part, rho_k, rho): return 1 / SOLUTION(every, part, rho_k, rho)", "over that of the"),
    ("ch15.q2", "def f(every, part, rho_k, rho): return (1 + part / every) / 2", "how far does it drift"),
    ("ch15.q2", "def f(every, part, rho_k, rho): return 2 / every", "a factor of 1"),
    ("ch16.q1", "def f(a, J, lam): return float((a**2).mean())", "The network may adapt"),
    ("ch16.q1", "def f(a, J, lam): return len(a) * SOLUTION(a, J, lam)", "n times too large"),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            b = -torch.linalg.solve(J.T @ J / len(a) + lam * torch.eye(J.shape[1]), J.T @ a / len(a))
            return float(((a + J @ b) ** 2).mean())
        """,
        "what it costs is missing",
    ),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            b = -torch.linalg.solve(J.T @ J + lam * torch.eye(J.shape[1]), J.T @ a)
            return float(((a + J @ b) ** 2).mean() + lam * b @ b)
        """,
        "Mind the 1/n",
    ),
    ("ch16.q2", "def f(times): return 1 / times, 1.0", "that of the variance"),
    ("ch16.q2", "def f(times): return 1 / times**0.5, 1 / times**0.5", "second factor"),
    ("ch16.q2", "def f(times): return 1.0, 1.0", "more data do help"),
    ("ch16.q2", "def f(times): return 0.5", "2 numbers"),
    ("ch17.q1", "def f(rise, anchor): return rise", "still `rise`"),
    ("ch17.q1", "def f(rise, anchor): return lambda charge: rise(charge - anchor)", "lost its shape"),
    ("ch17.q1", "def f(rise, anchor): return lambda charge: rise(charge) - rise(torch.zeros(1))", "should give zero"),
    ("ch17.q1", "def f(rise, anchor): return rise(torch.tensor([anchor]))", "should return a function"),
    ("ch17.q2", "def f(effect, features): return 1 - SOLUTION(effect, features)", "can\\* be imitated"),
    ("ch17.q2", "def f(effect, features): return SOLUTION(effect, features) ** 0.5", "mean square"),
    (
        "ch17.q2",
        """
        def f(effect, features):
            best = torch.linalg.lstsq(features, effect[:, None]).solution
            return float((effect - (features @ best)[:, 0]).square().mean())
        """,
        "another unit",
    ),
    ("ch17.q2", "def f(effect, features): return 0.0", "less than the best"),
    (
        "ch18.q1",
        "def f(first, second, n): return n * first[1] / second[1], SOLUTION(first, second, n)[1]",
        "of one member gains nothing",
    ),
    ("ch18.q1", "def f(first, second, members): return members, 1.0", "nor does it cost the sum"),
    (
        "ch18.q1",
        """
        def f(first, second, members):
            gain, most = SOLUTION(first, second, members)
            return gain * first[1] / (first[1] - (first[0] - 1) * (second[1] - first[1]) / (second[0] - first[0])), most
        """,
        "for one",
    ),
    (
        "ch18.q1",
        "def f(first, second, members): return 1 / SOLUTION(first, second, members)[0], 1.0",
        "time of the stack",
    ),
    ("ch18.q1", "def f(*x): gain, most = SOLUTION(*x); return gain, most - 1", "as good as none"),
    ("ch18.q1", "def f(*x): gain, most = SOLUTION(*x); return gain, 1 + 1 / (most - 1)", "not the smaller"),
    ("ch18.q1", "def f(*x): gain, most = SOLUTION(*x); return gain, gain", "stacks that gain more"),
    ("ch18.q1", "def f(*x): gain, most = SOLUTION(*x); return gain, math.inf", "nan or infinity"),
    ("ch18.q2", "def f(members, processes, limit, a, b): return limit", "can be had"),
    ("ch18.q2", "def f(*x): return x[0] if x[1] == 8 else SOLUTION(*x)", "have nothing to do"),
    ("ch18.q2", "def f(members, processes, limit, a, b): return math.ceil(members / processes)", "your job has 30"),
    ("ch18.q2", "def f(members, processes, limit, a, b): return 1", "jobs of 1 take 30 rounds"),
    ("ch18.q2", "def f(members, processes, limit, a, b): return members / processes", "whole number|your job has"),
    (
        "ch18.q2",
        "def f(members, processes, limit, a, b): return min(limit, math.ceil(members / processes))",
        "can be had",
    ),
    (
        "ch19.q1",
        """
        def f(model, theta, phi):
            Jt, Jp = torch.func.jacrev(model, (0, 1))(theta, phi)
            free = Jt - Jp @ torch.linalg.pinv(Jp) @ Jt
            return (free**2).sum(0) / (Jt**2).sum(0)
        """,
        "treat the other theta as known",
    ),
    ("ch19.q1", "def f(model, theta, phi): return 1 - SOLUTION(model, theta, phi)", "share that is lost"),
    ("ch19.q1", "def f(model, theta, phi): return SOLUTION(model, theta, phi) ** 0.5", "share of the size"),
    ("ch19.q1", "def f(model, theta, phi): return torch.ones(len(theta))", "share is wrong|say that something is left"),
    ("ch19.q1", "def f(model, theta, phi): return torch.full((len(theta),), 7.0)", "between 0 and 1"),
    ("ch19.q1", "def f(model, theta, phi): return SOLUTION(model, theta, phi).mean()", r"shape \(2,\)"),
    (
        "ch19.q2",
        """
        def f(losses, errors):
            best = min(errors, key=lambda s: np.median(errors[s]))
            return best, best, np.median(losses[best]) / np.median(losses[0])
        """,
        "Nobody who needs theta",
    ),
    (
        "ch19.q2",
        """
        def f(losses, errors):
            least = min(losses, key=lambda s: np.median(losses[s]))
            return least, *SOLUTION(losses, errors)[1:]
        """,
        "a larger one predicts well enough",
    ),
    ("ch19.q2", "def f(losses, errors): return max(losses), *SOLUTION(losses, errors)[1:]", "10 % above the lowest"),
    (
        "ch19.q2",
        """
        def f(losses, errors):
            mean = {s: np.mean(v) for s, v in losses.items()}
            blind = max(s for s in mean if mean[s] <= 1.1 * min(mean.values()))
            return blind, *SOLUTION(losses, errors)[1:]
        """,
        "one seed that failed",
    ),
    (
        "ch19.q2",
        "def f(*x): blind, best, price = SOLUTION(*x); return blind, blind, price",
        "smaller median theta error",
    ),
    ("ch19.q2", "def f(*x): blind, best, price = SOLUTION(*x); return blind, best, 1 / price", "its inverse"),
    (
        "ch19.q2",
        """
        def f(losses, errors):
            blind, best, _ = SOLUTION(losses, errors)
            return blind, best, np.median(losses[best]) / min(map(np.median, losses.values()))
        """,
        "not with the lowest",
    ),
]

ALSO_RIGHT = [
    (
        "ch14.q1",
        """
        def f(network, x, count):
            J = torch.func.jacrev(lambda w: network(x, w))
            return torch.allclose(J(torch.randn(count)), J(torch.randn(count)))
        """,
    ),
    (
        "ch15.q1",
        """
        def f(method, erm):
            ratio, generator = method / erm, np.random.default_rng(7)
            medians = sorted(np.median(generator.choice(ratio, len(ratio))) for _ in range(2000))
            return np.median(ratio), medians[50], medians[1949]
        """,
    ),
    ("ch15.q2", "def f(k, part, rho_k, rho): return 2 * (rho_k / rho) ** 2 / (k + part)"),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            n = len(a)
            return a @ torch.linalg.solve(torch.eye(n) + J @ J.T / (n * lam), a) / n
        """,
    ),
    ("ch16.q2", "def f(times): return torch.tensor([times**-0.5, 1.0])"),
    (
        "ch17.q1",
        """
        def f(rise, anchor):
            zero = rise(torch.full((1,), anchor)).item()
            return lambda charge: rise(charge) - zero
        """,
    ),
    (
        "ch18.q1",
        """
        def f(first, second, members):
            b, a = np.polyfit(*zip(first, second), 1)
            return np.array([members * (a + b) / (a + b * members), (a + b) / b])
        """,
    ),
    (
        "ch18.q2",
        """
        def f(members, processes, limit, a, b):
            best = None
            for rounds in range(1, members + 1):
                M = -(-members // (rounds * processes))
                if M <= limit and (best is None or rounds * (a + b * M) < best[0]):
                    best = rounds * (a + b * M), M
            return best[1]
        """,
    ),
    (
        "ch19.q1",
        """
        def f(model, theta, phi):
            Jt, Jp = torch.func.jacrev(model, (0, 1))(theta, phi)
            n = len(Jt)
            S = Jt.T @ torch.linalg.solve(torch.eye(n) + Jp @ Jp.T / (n * 1e-10), Jt)
            return (Jt.T @ Jt).inverse().diagonal() / S.inverse().diagonal()
        """,
    ),
    (
        "ch19.q2",
        """
        def f(losses, errors):
            table, wrong = np.median(list(losses.values()), 1), np.median(list(errors.values()), 1)
            names = list(losses)
            good = [s for s, x in zip(names, table) if x / table.min() <= 1.1]
            return torch.tensor([good[-1], names[wrong.argmin()], table[wrong.argmin()] / table[0]])
        """,
    ),
]
