"""Ask each address that the rendered book and the README link to: `python -m tools.links`, after `make book`.

It needs the network, and other people's servers fail now and then: it is no part of `make test`. A server that
answers but refuses (many publishers do so to programs) counts as there; exit 1 only for links that lead nowhere.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urldefrag
from urllib.request import Request, urlopen

from bs4 import BeautifulSoup

from tools import address

ROOT = address.ROOT
HTML = ROOT / "_build" / "html"
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff")
# On every page, for that page: they need an account and say nothing about the book.
OWN = re.compile(r"/(edit|issues/new)\b|^https://(colab\.research\.google\.com|mybinder\.org)/")
GONE = {404, 410}
TRIES, PAUSE, TIMEOUT = 3, 5.0, 30.0  # the latter in seconds
AGENT = "Mozilla/5.0 (compatible; link check of a book)"


def external(html: Path, texts: Iterable[Path]) -> dict[str, list[str]]:
    """Address -> the pages and files that name it, without what only leads to one of their sections."""
    where = defaultdict(set)
    for path in sorted(html.rglob("*.html")):
        for link in BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find_all("a", href=True):
            where[urldefrag(str(link["href"])).url].add(path.relative_to(html).as_posix())
    for path in texts:
        for url in re.findall(r"https?://[^\s<>)\]\"'`]+", path.read_text(encoding="utf-8")):
            where[urldefrag(url.rstrip(".,;")).url].add(path.name)
    return {url: sorted(at) for url, at in sorted(where.items()) if url.startswith("http") and not OWN.search(url)}


def status(url: str, tries: int = TRIES, pause: float = PAUSE, timeout: float = TIMEOUT) -> tuple[str, str]:
    """("ok" | "unsure" | "broken", why), after as many tries."""
    for left in reversed(range(tries)):
        try:
            # To the end: some servers answer HEAD, or the first bytes, for a page that is not there.
            request = Request(quote(url, safe=":/?#[]@!$&'()*+,;=%~"), headers={"User-Agent": AGENT})
            with urlopen(request, timeout=timeout) as answer:
                answer.read()
            return "ok", ""
        except HTTPError as error:
            found = "broken" if error.code in GONE else "unsure", f"HTTP {error.code}"
            error.close()
        except (OSError, HTTPException, ValueError) as error:
            found = "broken", str(getattr(error, "reason", error)) or type(error).__name__
        if left:
            time.sleep(pause)
    return found


def main() -> int:
    """1 if a link is broken, or if there is nothing to look at."""
    links = external(HTML, [ROOT / name for name in TEXTS])
    if not HTML.is_dir():
        print("There is no rendered book in _build/html: run make book first.", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(links, pool.map(status, links), strict=True))
    for kind in ("unsure", "broken"):
        for url, (verdict, why) in found.items():
            if verdict == kind:
                print(f"{kind}: {url} ({why}) in {', '.join(links[url])}")
    broken = sum(verdict == "broken" for verdict, _ in found.values())
    print(f"{len(found)} links, {broken} broken.", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
