"""Robustness: what the library does with bad input and with files that it cannot trust.

One property for both: either it works, or it raises the library's own error, in one line that says what is wrong; it
never hangs, never takes much memory, and never leaves anything on the disk that it should not.

`judge`     what counts as the library's own error.
`damage`    how files are changed: bytes, JSON, ZIP archives, images, pickles.
`readers`   everything that reads a file, with valid files to begin from.
`cases`     calls by hypothesis with arguments that may be odd: of the public `functions` and of the `commands`.

`tests/test_fuzz.py` runs a fixed part of it; for as long as you like, with a seed that is printed:

    python -m tools.fuzz --cases 10000 --inputs 1000000 --seconds 600
"""
