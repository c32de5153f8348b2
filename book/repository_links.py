"""A preprocessor of mdBook: a link to a file outside of the book's source becomes a link to the repository.

In the repository the relative link is the better one: it works in every clone and on every branch.
"""

import json
import posixpath
import re
import sys

REPOSITORY = "https://github.com/gmflow/gmflow/blob/main/"
SOURCE = "book/src"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")


def rewrite(chapter):
    folder = posixpath.join(SOURCE, posixpath.dirname(chapter["path"]))

    def target(match):
        path = match[2]
        if re.match(r"[a-z]+:", path):
            return match[0]
        full = posixpath.normpath(posixpath.join(folder, path))
        if full.startswith(SOURCE + "/"):
            return match[0]
        return f"{match[1]}{REPOSITORY}{full}{match[3] or ''})"

    chapter["content"] = LINK.sub(target, chapter["content"])


def walk(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter.get("path"):
                rewrite(chapter)
            walk(chapter["sub_items"])


if len(sys.argv) > 1 and sys.argv[1] == "supports":
    sys.exit(0)
_, book = json.load(sys.stdin)
walk(book["items"] if "items" in book else book["sections"])
json.dump(book, sys.stdout)
