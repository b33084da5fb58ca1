#!/bin/sh
# Print the path of a Python that can hold this project: 3.10 to 3.13, with venv and ensurepip.
# PYTHON=/path/to/python takes that one or fails. Nothing found: say what is missing, exit 1.
set -u

can_make_venv='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
seen=''

for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    path=$(command -v "$name" 2>/dev/null) || continue
    if "$path" -c "$can_make_venv" >/dev/null 2>&1; then
        echo "$path"
        exit 0
    fi
    if "$path" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        seen="$seen
  $path is Python $("$path" -c "$version" 2>/dev/null || echo '(does not start)')"
    else
        seen="$seen
  $path is Python $("$path" -c "$version" 2>/dev/null || echo '(does not start)'), \
without the modules venv and ensurepip"
    fi
done

{
    echo "No suitable Python: needed is 3.10, 3.11, 3.12 or 3.13 with the modules venv and ensurepip."
    if [ -n "$seen" ]; then echo "Found:$seen"; else echo "Found none (tried: ${PYTHON:-python3, python3.13 ... python3.10})."; fi
    echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Elsewhere: install Python and"
    echo "name it with: make PYTHON=/path/to/python3 ..."
} >&2
exit 1
