"""A preprocessor of mdBook: a link to a file that is no part of the HTML becomes a link to the repository.

In the repository the relative link is the better one: it works in every clone and on every branch.
"""

import json
import posixpath
import re
import sys

REPOSITORY = "https://github.com/gmflow/gmflow/blob/main/"
SOURCE = "book/src"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")


def chapters(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter.get("source_path"):
                yield chapter
            yield from chapters(chapter["sub_items"])


def rewrite(chapter, pages):
    folder = posixpath.join(SOURCE, posixpath.dirname(chapter["source_path"]))

    def target(match):
        path, anchor = match[2], match[3] or ""
        if re.match(r"[a-z]+:", path):
            return match[0]
        full = posixpath.normpath(posixpath.join(folder, path))
        if full.startswith(SOURCE + "/") and (full in pages or not full.endswith(".md")):
            # mdBook writes README.md as index.html.
            return f"{match[1]}{re.sub(r'README.md$', 'index.md', path)}{anchor})"
        return f"{match[1]}{REPOSITORY}{full}{anchor})"

    chapter["content"] = LINK.sub(target, chapter["content"])


if len(sys.argv) > 1 and sys.argv[1] == "supports":
    sys.exit(0)
_, book = json.load(sys.stdin)
found = list(chapters(book["items"] if "items" in book else book["sections"]))
pages = {posixpath.join(SOURCE, chapter["source_path"]) for chapter in found}
for chapter in found:
    rewrite(chapter, pages)
json.dump(book, sys.stdout)
