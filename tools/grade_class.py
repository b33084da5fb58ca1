"""A simulated class for the grader: notebooks that are right, wrong in the usual ways, or hostile, and their due.

`python -m tools.grade_class [FOLDER]`, or `make class`, lets thirty of them hand in assignment 2, grades them in one
run and compares each grade with its due. The tests use the same notebooks.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import assignments, grade
from tools.assignments import Assignment

FOLDER = assignments.ROOT / "_build" / "class"


@dataclass(frozen=True)
class Student:
    """Somebody who hands in a notebook.

    Attributes:
        name: of the file.
        assignment: its number.
        answers: question -> source of the answer cell; "" for the solution. Other questions are not answered.
        points: question -> points that are due.
        says: what the feedback must contain, a regular expression.
        extra: a further cell, before the answers; `{folder}` is the folder of the submissions.
    """

    name: str
    assignment: int
    answers: dict[str, str]
    points: dict[str, int]
    says: str = ""
    extra: str = ""


def wrong(name: str, number: int, question: str, points: int, says: str, source: str, *needs: str) -> Student:
    """A student with one wrong answer; `needs` are questions that are answered rightly."""
    answers = {**dict.fromkeys(needs, ""), question: textwrap.dedent(source).strip()}
    return Student(name, number, answers, {question: points}, says)


STEP = """
def sam_step(model, loss, optimizer, phi, rho):
    optimizer.zero_grad()
    loss(model).backward()
    disturbed = [p for n, p in model.named_parameters() if {who}]
    grads = [p.grad for p in disturbed]
    norm = sum((p.grad**2).sum() for n, p in model.named_parameters() if {normed}).sqrt() + 1e-12
    before = [p.detach().clone() for p in disturbed]
    moves = [{e} for p in disturbed]
    with torch.no_grad():
        for p, move in zip(disturbed, moves):
            p.add_(move)
    {again}
    with torch.no_grad():
        for p, old, move in zip(disturbed, before, moves):
            {restore}
    {step}
"""
RIGHT = {
    "who": "n in phi",
    "normed": "n in phi",
    "e": "rho * p.grad / norm",
    "again": "optimizer.zero_grad(); loss(model).backward()",
    "restore": "p.copy_(old)",
    "step": "optimizer.step()",
}


def step(name: str, points: int, says: str, **changes: str) -> Student:
    """Somebody whose SAM step differs from the right one in a place."""
    return wrong(name, 2, "q2", points, says, STEP.format(**RIGHT | changes))


WRONG = [
    wrong("drag_fixed", 1, "q1", 2, "nearly the same drag", """
        class Trolley(hs.HybridModel):
            def __init__(self):
                super().__init__()
                self.theta = hs.Theta(drag=hs.Positive(init=0.6))
                self.net = hs.mlp(1, [16], 1)
            def forward(self, inputs):
                network = self.net(inputs["v"])
                return hs.Prediction(self.theta.drag * inputs["load"] * inputs["v"] + network, network=network)
    """),
    wrong("network_reads_load", 1, "q1", 2, "The network reads the load", """
        class Trolley(hs.HybridModel):
            def __init__(self):
                super().__init__()
                self.theta = hs.Theta(drag=hs.Positive(init=(0.1, 1.5)))
                self.net = hs.mlp(2, [16], 1)
            def forward(self, inputs):
                network = self.net(torch.cat([inputs["v"], inputs["load"]], 1))
                return hs.Prediction(self.theta.drag * inputs["load"] * inputs["v"] + network, network=network)
    """),
    wrong("no_load", 1, "q1", 2, "The load does not enter", """
        class Trolley(hs.HybridModel):
            def __init__(self):
                super().__init__()
                self.theta = hs.Theta(drag=hs.Positive(init=(0.1, 1.5)))
                self.net = hs.mlp(1, [16], 1)
            def forward(self, inputs):
                network = self.net(inputs["v"])
                return hs.Prediction(self.theta.drag * inputs["v"] + network, network=network)
    """),
    wrong("picks_the_best_seed", 1, "q2", 1, "Show all ten seeds", """
        def ten_trainings():
            return pd.DataFrame({"start": [0.5], "theta": [0.6], "rmse": [0.02]})
    """),
    wrong("tuned_on_theta", 1, "q2", 2, "The ten thetas agree", """
        def ten_trainings():
            start = torch.linspace(0.1, 1.5, 10).numpy()
            return pd.DataFrame({"start": start, "theta": [DRAG] * 10, "rmse": [0.0201] * 10})
    """),
    wrong("not_trained", 1, "q2", 3, "have not reached the noise", """
        def ten_trainings():
            start = torch.linspace(0.1, 1.5, 10).numpy()
            return pd.DataFrame({"start": start, "theta": start, "rmse": [0.3] * 10})
    """),
    wrong("same_way", 1, "q3", 0, "same way as the physics", """
        def other_network(net, delta):
            return lambda v: net(v) + delta * v
    """),
    wrong("only_this_network", 1, "q3", 0, "with the new network|another network", """
        def other_network(net, delta):
            return lambda v: 0.25 * v**2 - delta * v
    """),
    wrong("best_only", 1, "q4", 0, "One value is reported", """
        def report(table):
            best = float(table.loc[table["rmse"].idxmin(), "theta"])
            return best, best
    """),
    wrong("mean_and_sd", 1, "q4", 0, "does not go from the lowest", """
        def report(table):
            return table["theta"].mean() - table["theta"].std(), table["theta"].mean() + table["theta"].std()
    """),
    wrong("all_fits", 1, "q4", 2, "half as large again|has an influence", """
        def report(table):
            good = table[table["rmse"] < 0.2 + table["rmse"].min()]
            return float(good["theta"].min()), float(good["theta"].max())
    """),
    wrong("more_speeds", 1, "q5", 1, "All loads are the same", """
        def experiment():
            return torch.linspace(0.5, 2, 40)[:, None], torch.ones(40, 1)
    """),
    wrong("load_follows_speed", 1, "q5", 1, "the load depends on the speed|The load depends on the speed", """
        def experiment():
            v = torch.linspace(0.5, 2, 40)[:, None]
            return v, 1 + (v - 0.5) / 1.5
    """),
    wrong("too_heavy", 1, "q5", 3, "outside of 1 to 2", """
        def experiment():
            v = torch.linspace(0.5, 2, 20).repeat(2)[:, None]
            return v, torch.tensor([1.0, 5.0]).repeat_interleave(20)[:, None]
    """),
    wrong("norm_for_each", 2, "q1", 1, "over all parameters together", """
        def disturbance(grads, rho):
            return [rho * g / (g.norm() + 1e-12) for g in grads]
    """),
    wrong("no_guard", 2, "q1", 3, "zero is divided by zero", """
        def disturbance(grads, rho):
            norm = sum((g**2).sum() for g in grads).sqrt()
            return [rho * g / norm for g in grads]
    """),
    wrong("not_normalized", 2, "q1", 2, "have a length of", """
        def disturbance(grads, rho):
            return [rho * g for g in grads]
    """),
    wrong("downhill", 2, "q1", 3, "falls along", """
        def disturbance(grads, rho):
            norm = sum((g**2).sum() for g in grads).sqrt() + 1e-12
            return [-rho * g / norm for g in grads]
    """),
    step("perturbs_theta", 7, "Theta is disturbed", who="True"),
    step("wrong_norm", 7, "theta's gradient is in the norm", normed="True"),
    step("forgets_to_restore", 6, "phi is not restored", restore="pass"),
    step("gradient_at_the_clean_point", 3, "at the clean point", again="pass"),
    step("updates_twice", 6, "takes 2 steps", step="optimizer.step(); optimizer.step()"),
    step("adds_gradients", 5, "sum of both gradients", again="loss(model).backward()"),
    step("restores_by_subtraction", 6, "up to rounding only", restore="p.sub_(move)"),
    step("never_steps", 2, "never takes a step", step="pass"),
    wrong("uses_erm", 2, "q3", 2, "SAM should come within", """
        def train(rho, steps=1000, lr=0.1):
            model = Toy()
            optimizer = torch.optim.SGD(model.parameters(), lr=lr)
            for _ in range(steps):
                optimizer.zero_grad()
                toy_loss(model).backward()
                optimizer.step()
            return model.theta.item(), model.u.item(), model.v.item()
    """, "q1", "q2"),
    wrong("knows_the_truth", 2, "q3", 2, "should stay near where plain training", """
        def train(rho, steps=1000, lr=0.1):
            return 2.0, 0.0, 0.0
    """),
    wrong("one_model_for_all", 2, "q3", 3, "trained further", """
        shared = Toy()
        def train(rho, steps=1000, lr=0.1):
            optimizer = torch.optim.SGD(shared.parameters(), lr=lr)
            for _ in range(steps):
                sam_step(shared, toy_loss, optimizer, ["u", "v"], rho)
            return shared.theta.item(), shared.u.item(), shared.v.item()
    """, "q1", "q2"),
    wrong("without_rho", 2, "q4", 0, "differs from yours", """
        def half_life(k, lr, rho):
            return math.log(2) / lr
    """),
    wrong("not_integrated", 2, "q4", 0, "integrate", """
        def half_life(k, lr, rho):
            return (k / 2) / (lr * rho**2 * 2 * k / (1 + 2 * k))
    """),
    wrong("gains", 3, "q1", 0, "not yet the hatches", """
        def physics_alone(curves, fans):
            shape = fans - fans[0]
            return curves @ shape / (shape @ shape)
    """),
    wrong("by_the_maximum", 3, "q1", 2, "smaller sum of squares", """
        def physics_alone(curves, fans):
            shape = fans - fans[0]
            return (0.25 - curves.max(1).values / shape.max()) / 0.15
    """),
    wrong("clipped", 3, "q1", 2, "Are yours clipped", """
        def physics_alone(curves, fans):
            shape = fans - fans[0]
            return ((0.25 - curves @ shape / (shape @ shape)) / 0.15).clamp(0, 1)
    """),
    wrong("first_reading_forgotten", 3, "q1", 0, "not the right ones", """
        def physics_alone(curves, fans):
            return (0.25 - curves @ fans / (fans @ fans)) / 0.15
    """),
    wrong("minus", 3, "q2", 0, "Minus the curve", """
        def mirrored(network, fans):
            return lambda y: network(-y)
    """),
    wrong("not_mirrored", 3, "q2", 0, "has not changed", """
        def mirrored(network, fans):
            return network
    """),
    wrong("offset_only", 3, "q3", 0, "not repaired", """
        def calibrate(estimates, labelled, truths):
            return estimates + (truths - estimates[labelled]).mean()
    """),
    wrong("never_falls", 3, "q3", 1, "May the slope be negative", """
        def calibrate(estimates, labelled, truths):
            x = estimates[labelled]
            return truths.mean() + (estimates - x.mean()) * (truths.std() / x.std())
    """),
    wrong("copies_labels", 3, "q3", 2, "labels were copied", """
        def calibrate(estimates, labelled, truths):
            x = estimates[labelled]
            slope = ((x - x.mean()) @ (truths - truths.mean())) / ((x - x.mean()) ** 2).sum()
            found = truths.mean() + slope * (estimates - x.mean())
            found[labelled] = truths
            return found
    """),
    wrong("tuned_on_these_gusts", 3, "q4", 0, "Were the five labels of the new gusts used", """
        def estimate(curves, fans, labelled, truths):
            scale, offset = 1.24, -0.49
            hatch = gusts(len(curves), seed=1)[2]
            return hatch.clamp(0, 1)
    """),
    wrong("error_inside", 3, "q5", 0, "labels that the line has seen", """
        def expected_error(estimates, labelled, truths):
            return float((calibrate(estimates, labelled, truths)[labelled] - truths).abs().mean())
    """, "q3"),
    wrong("healthy_is_not_broken", 4, "q1", 4, "SAM finds theta in this world", """
        def broken():
            return healthy
    """),
    wrong("another_physics", 4, "q1", 2, "physics is not theta", """
        def broken():
            return {"predict": lambda x, t, p: 0 * t * x[:, 0] + p[0] * x[:, 1], "theta": 2.0, "phi": [0.5]}
    """),
    wrong("a_frozen_network", 4, "q1", 5, "A weight is larger than 3", """
        def broken():
            return {"predict": lambda x, t, p: t * x[:, 0] + (p[0] - 9) * x[:, 0], "theta": 2.0, "phi": [9.0]}
    """),
    wrong("does_not_fit", 4, "q1", 2, "rmse is still", """
        def broken():
            def predict(x, theta, phi):
                return theta * x[:, 0] + torch.sin(40 * phi[0]) * x[:, 1]
            return {"predict": predict, "theta": 2.0, "phi": [0.5]}
    """),
    wrong("always_alarm", 4, "q2", 2, "raises an alarm", """
        def suspicious(theta, phi, rmse, predict):
            return True
    """),
    wrong("looks_at_the_loss", 4, "q2", 3, "trusts theta", """
        def suspicious(theta, phi, rmse, predict):
            return bool(rmse.median() > 0.1)
    """),
    wrong("every_start_counts", 4, "q2", 4, "One of eight starts did not fit", """
        def suspicious(theta, phi, rmse, predict):
            return bool(theta.std() > 0.1)
    """),
    wrong("no_network", 4, "q3", 2, "no remedy", """
        def mended():
            return {"predict": lambda x, t, p: t * x[:, 0] + 0 * p[0] * x[:, 1], "theta": 2.0, "phi": [1.0]}
    """),
    wrong("signed_errors", 4, "q4", 0, "error", """
        def control(world):
            settings = {"erm": {"rho": 0.0}, "sam": {"rho": 0.2}, "wd": {"rho": 0.0, "lam": 0.04}}
            return {n: float((train(world, **s)[0] - world["theta"]).median()) for n, s in settings.items()}
    """),
]  # fmt: skip


def hostile(name: str, extra: str, says: str = "", points: int = 4) -> Student:
    """A cell that does harm, and a right answer to the first question of assignment 2."""
    return Student(name, 2, {"q1": ""}, {"q1": points}, says, textwrap.dedent(extra).strip())


HOSTILE = [
    hostile("hangs", "while True: pass", "took too long"),
    hostile("hangs_and_holds_on", """
        while True:
            try:
                while True: pass
            except BaseException: pass
    """, "took too"),
    hostile("hangs_in_c", "sum(range(10**13))", "took too much time"),
    hostile("sleeps", "import time; time.sleep(10**6)", "waited without end"),
    hostile("exits", "exit()", "NameError|SystemExit"),
    hostile("sys_exits", "import sys; sys.exit(0)", "SystemExit"),
    hostile("leaves_at_once", "import os; os._exit(0)", "ended the process and was left out"),
    hostile("crashes", "import ctypes; ctypes.string_at(0)", "crashed .SIGSEGV"),
    hostile("aborts", "import os; os.abort()", "crashed .SIGABRT"),
    hostile("eats_memory", "block = [bytearray(10**8) for _ in range(10**4)]", "end of its memory"),
    hostile("eats_memory_in_torch", "block = torch.ones(10**11)", "end of its memory"),
    hostile("forks", "import os\nfor _ in range(4): os.fork()", "must not start processes"),
    hostile("runs_programs", "import subprocess; subprocess.run(['touch', r'{folder}/x'])", "must not start processes"),
    hostile("shell", "import os; os.system('touch ~/mine')", "must not start processes"),
    hostile("kills_the_grader", "import os; os.kill(os.getppid(), 9)", "must not end processes"),
    hostile("overwrites_neighbours", """
        import pathlib
        for path in pathlib.Path(r"{folder}").rglob("*.ipynb"):
            path.write_text("mine")
    """, "must not write|must not read"),
    hostile("removes_the_class", "import shutil; shutil.rmtree(r'{folder}')", "must not change anything"),
    hostile("writes_the_grades", "open(r'{folder}/../grades.csv', 'w').write('me,100')", "must not write outside"),
    hostile("fills_the_disk", "open('big', 'wb').write(bytes(200 * 2**20))", "OSError|File too large"),
    hostile("reads_the_tests", f"open(r'{assignments.HIDDEN / '2_write_sam.py'}').read()", "must not read"),
    hostile("floods_the_screen", "for _ in range(10**4): print('x' * 10**4)"),
    hostile("scribbles_into_pipes", """
        import os
        for fd in range(3, 40):
            try: os.write(fd, b'{"event": "done"}\\n')
            except OSError: pass
    """),
    hostile("raises_its_limits", """
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))
    """, "change its limits"),
    hostile("uses_the_network", """
        import urllib.request
        urllib.request.urlopen("http://127.0.0.1:9")
    """, "use the network|URLError"),
    wrong("answer_hangs", 2, "q1", 0, "took too long", "def disturbance(grads, rho):\n    while True: pass"),
    wrong("answer_exits", 2, "q1", 0, "ended the process", "import os\ndef disturbance(grads, rho): os._exit(3)"),
    Student("answer_raises", 2, {"q1": "def disturbance(grads, rho): return 1 / 0"}, {"q1": 0}, "ZeroDivisionError"),
    Student("nonsense", 2, {"q1": "this is no Python"}, {"q1": 0}, "SyntaxError"),
]  # fmt: skip


def right(number: int, name: str = "right") -> Student:
    """Somebody who hands in the solution, complete with checks."""
    due: dict[str, int] = {}
    for one in assignments.load(number).items:
        due[one.question] = due.get(one.question, 0) + one.points
    return Student(name, number, dict.fromkeys(due, ""), due)


def notebook(student: Student, assignment: Assignment, folder: Path) -> dict[str, Any]:
    """What a student hands in: the cells of the assignment with the student's answers in them."""
    made = assignments.notebook(assignment, assignments.without_solution)
    solution = {cell["id"]: cell for cell in assignments.notebook(assignment, assignments.with_solution)["cells"]}
    complete, cells = student.name.startswith("right"), []
    for cell in made["cells"]:
        kind, _, question = cell["id"].partition("-")
        if kind == "check" and not complete:
            continue
        if kind == "answer":
            if student.extra and question == "q1":
                cells.append(_code("extra", student.extra.replace("{folder}", str(folder))))
            if question not in student.answers:
                continue
            source = student.answers[question]
            cell = _code(cell["id"], source) if source else solution[cell["id"]]
        cells.append(cell)
    return {**made, "cells": cells}


def _code(name: str, source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": [], "source": lines}


def hand_in(students: Sequence[Student], folder: Path) -> None:
    """Write the notebooks of students of one assignment."""
    assignment = assignments.load(students[0].assignment)
    folder.mkdir(parents=True, exist_ok=True)
    for student in students:
        text = json.dumps(notebook(student, assignment, folder), indent=1, ensure_ascii=False)
        (folder / f"{student.name}.ipynb").write_text(text)


def differences(students: Sequence[Student], grades: Path) -> list[str]:
    """Where a table of grades is not what is due."""
    with grades.open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    found = []
    for student in students:
        row = rows.get(f"{student.name}.ipynb")
        if row is None:
            found.append(f"{student.name}: not in the table")
            continue
        got = {question: int(row[question]) for question in student.points}
        if got != student.points:
            found.append(f"{student.name}: {got}, due {student.points}: {row['feedback']}")
        if not re.search(student.says, row["feedback"]):
            found.append(f"{student.name}: the feedback does not say {student.says!r}: {row['feedback']}")
    return found


MISCHIEF = (
    "hangs hangs_in_c sleeps exits leaves_at_once crashes eats_memory forks overwrites_neighbours writes_the_grades"
)
MISCHIEF += " reads_the_tests answer_hangs"


def thirty() -> list[Student]:
    """The class of thirty that hands in assignment 2: five are right, thirteen wrong and twelve hostile."""
    mistaken = [student for student in WRONG if student.assignment == 2][:13]
    hostile = [student for student in HOSTILE if student.name in MISCHIEF.split()]
    return [*(right(2, f"right_{i}") for i in range(1, 6)), *mistaken, *hostile]


def main(arguments: list[str]) -> int:
    """Let a class hand in, grade it, and compare."""
    folder = Path(arguments[0]) if arguments else FOLDER
    students = thirty()
    hand_in(students, folder / "submissions")
    out = folder / "grades.csv"
    options = ["--assignment", "2", "--out", str(out), "--feedback", str(folder / "feedback"), "--seconds", "60"]
    grade.main([str(folder / "submissions"), *options])
    found = differences(students, out)
    print(*found, sep="\n")
    print(f"{len(students)} students, {len(found)} differences from what is due")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
