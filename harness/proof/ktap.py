# SPDX-License-Identifier: GPL-2.0
"""Read KTAP: the flat kind of kselftest and the nested kind of KUnit."""
import re

LINE = re.compile(r"^( *)(not ok|ok) +(\d+)(?: +-)? *([^#]*?) *(?:# *(\w+)(.*))?$")
PLAN = re.compile(r"^( *)1\.\.(\d+)")
# a script that lacks something; what it needs, make setup installs
NOTHING = re.compile(r"^1\.\.0\b")
SUBTEST = re.compile(r"^ *# Subtest: (.*)")
COMMENT = re.compile(r"^ *# +(.*\S)")


class Results:
    """Names of the leaves; incomplete if a plan was not fulfilled, or there was none."""
    def __init__(self):
        self.passed, self.failed, self.skipped = [], [], []
        self.reasons = {}             # of failures: what was said last before it
        self.incomplete = False

    def failures(self):
        """What failed, and why as far as it was said."""
        return [": ".join(filter(None, (name, self.reasons.get(name)))) for name in self.failed]


def parse(text):
    """A result above results that are indented deeper sums them up, and is no leaf."""
    results = Results()
    planned, seen = {}, {}        # indentation: how many
    suite = []                    # names of the open subtests
    said = None

    def close(depth):
        """What is deeper than DEPTH has ended: was it all there?"""
        deeper = [d for d in set(planned) | set(seen) if d > depth]
        for d in deeper:
            # KUnit prints no plan for the parameters of a case
            if d in planned and seen.get(d, 0) < planned[d]:
                results.incomplete = True
            planned.pop(d, None)
            seen.pop(d, None)
        return bool(deeper)

    for line in text.splitlines():
        if line.startswith("Bail out!"):
            results.failed.append(line.strip())
        results.incomplete |= bool(NOTHING.match(line))
        if match := SUBTEST.match(line):
            suite.append(match[1])
        elif match := COMMENT.match(line):
            said = match[1]
        if match := PLAN.match(line):
            planned[len(match[1])] = planned.get(len(match[1]), 0) + int(match[2])
        if not (match := LINE.match(line)):
            continue
        indent, verdict, _, name, directive, reason = match.groups()
        why, said = said, None
        depth = len(indent)
        parent = close(depth)
        seen[depth] = seen.get(depth, 0) + 1
        skipped = (directive or "").upper() == "SKIP"
        if parent:
            while suite and suite.pop() != name:
                pass
            if verdict == "ok" or results.failed:
                continue
        name = ".".join(suite[-1:] + [name]) if depth else name
        if skipped:
            results.skipped.append(f"{name} ({reason.strip()})" if reason.strip() else name)
        elif verdict == "ok":
            results.passed.append(name)
        else:
            results.failed.append(name)
            results.reasons[name] = why
    close(-1)
    results.incomplete |= not (results.passed or results.failed or results.skipped)
    results.incomplete |= not re.search(r"(?m)^ *1\.\.\d", text)
    return results
