"""What hostile input is made of, and a look at a folder before and after."""

import hashlib
import json

NAMES = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    "//",
    "~",
    "~nobody-of-this-name/x",
    "a/../../x",
    "a\0b",
    "\n",
    "a\nb",
    "a\rb\t",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "e\N{COMBINING ACUTE ACCENT}\N{COMBINING GRAVE ACCENT}",
    "\N{GRINNING FACE}" * 5,
    "\udcff",
    "x" * 10_000,
    "-x",
    "--help",
    "con",
    "%s%n",
    "%2e%2e/x",
    "{}",
    "{{7*7}}",
    "[bold]",
    "\x1b[31m",
    "$HOME",
    "`id`",
    "a;b",
    "'",
    '"',
    "' OR 1=1",
    "\\",
    "a=b",
)
NUMBERS = (
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "-Infinity",
    "-1",
    "-0.0",
    "0",
    "1e308",
    "1e400",
    "1e-400",
    "9" * 30,
    "9" * 5000,
    "2147483648",
    "12.5",
    "1_000",
    "0x10",
)
JSON = ("true", "null", "[]", "{}", "[1, 2]", "[NaN]", "[4]", '{"a": 1}', "[" * 100_000, '{"a":' * 20_000, '"', '"12"')
JUNK = (None, True, -1, 0, 10**30, 1e308, float("nan"), float("-inf"), [], {}, [[]], {"x": 1}, *NAMES)


def damaged(whole, rng):
    """A file's content, cut off, with a bit or some bytes changed, with more behind it, or random from the start."""
    content = bytearray(whole)
    place = rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        content[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        content[place : place + 64] = rng.randbytes(len(content[place : place + 64]))
    elif kind == 3:
        content[place : place + 256] = bytes(len(content[place : place + 256]))
    elif kind == 4:
        content[place:place] = rng.randbytes(17)
    else:
        return rng.randbytes(rng.randrange(2000))
    return bytes(content)


def mutated(content, rng):
    """A copy of nested JSON in which a value is junk, or a field is missing or unknown."""
    content = json.loads(json.dumps(content))
    parents, stack = [], [content]
    while stack:
        each = stack.pop()
        if isinstance(each, dict | list) and each:
            parents.append(each)
            stack += each.values() if isinstance(each, dict) else each
    parent = rng.choice(parents)
    where = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    kind = rng.randrange(4)
    if kind == 0:
        del parent[where]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(NAMES)] = parent[where]
    else:
        parent[where] = rng.choice(JUNK)
    return content


def listing(folder, *without):
    """Digest of each file below a folder, None for a folder, but for some subfolders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not any(path.is_relative_to(each) for each in without):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return found
