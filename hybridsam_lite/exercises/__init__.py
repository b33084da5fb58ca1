"""Exercises that check themselves: `hs.exercises.check("ch04.q1", answer)`.

An answer is a function that the exercise asks for. The check tries it on random problems and looks at what a
right answer must satisfy, so that every correct solution passes, however it is written. It says what is wrong,
never what would be right, and it does not raise: a function that fails, returns nonsense or never ends gets a
sentence about it.

    verdict = hs.exercises.check("ch04.q1", sam_step)
    verdict            # in a notebook: the sentence
    assert verdict     # in a test: true if the answer is right

| function    | what it does                                        |
|-------------|-----------------------------------------------------|
| `check`     | try an answer, and say what is wrong with it        |
| `questions` | the names of all exercises, or those of one chapter |
| `statement` | what an exercise asks, as text                      |

The exercises of a chapter are one file here, each with its statement, a solution and a check. `tools/exercises.py`
writes them into the chapters: the student's cell is the solution with its body taken out.
"""

from hybridsam_lite.exercises.registry import check, questions, statement
from hybridsam_lite.exercises.verdict import Verdict

__all__ = ["Verdict", "check", "questions", "statement"]
