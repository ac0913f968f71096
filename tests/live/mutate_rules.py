"""Breaks one alert rule at a time and expects a scenario of alerts/tests to notice.

usage: mutate_rules.py [every]   every 8th mutant only, and so on; all of them without

Mutants: a rule deleted, a clause dropped, each number times 0.8 and 1.25, each comparison turned round,
`for` dropped and made half as long again, another severity, a matcher dropped. Exits 1 with those that
survive and are not listed, with a reason, in EQUIVALENT.
"""

import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

from service import ROOT, fail

RULES = (ROOT / "alerts" / "streamgate.rules.yml").read_text()
HOURS = (ROOT / "alerts" / "tests" / "hours.test.yml").read_text()

# What changes nothing that a scenario could see: the mutant's words, and why.
EQUIVALENT = {}

QUOTED = r'("[^"]*"|\[[^\]]*\])'


def rules():
    """Start and end of each rule in the file, with its name."""
    starts = [match.start() for match in re.finditer(r"^      - (?:record|alert): ", RULES, re.M)]
    groups = [match.start() for match in re.finditer(r"^  - name: ", RULES, re.M)] + [len(RULES)]
    for start in starts:
        end = min(place for place in starts + groups if place > start)
        name = re.match(r"      - (?:record|alert): '?([^'\n]+)", RULES[start:])[1]
        yield start, end, name


def expression(rule):
    """Where the expression of a rule stands in it."""
    match = re.search(r"^        expr: (?:\|-\n((?:          .*\n)+)|(.*)\n)", rule, re.M)
    return match.span(1) if match[1] else match.span(2)


def in_code(expr, pattern):
    """Matches outside of quotes and ranges."""
    masked = re.sub(QUOTED, lambda quoted: "\0" * len(quoted[0]), expr)
    return re.finditer(pattern, masked)


def changed_expressions(expr):
    """Every expression that differs from this one in one place, with what was done."""
    for match in in_code(expr, r"(?<![\w:.])\d+(?:\.\d+)?(?![\w.])"):
        value = float(match[0])
        for factor in (0.8, 1.25) if value else ():
            yield f"{match[0]} x{factor}", expr[: match.start()] + f"{value * factor:.10g}" + expr[match.end() :]
    for match in in_code(expr, r"[<>](?!=)"):
        turned = "<" if match[0] == ">" else ">"
        yield f"turned {match[0]}", expr[: match.start()] + turned + expr[match.end() :]
    for match in re.finditer(r"\n *(?:and|or|unless)\b[^\n]*(?:\n {12}[^\n]*)*", expr):
        yield f"dropped {match[0].strip()[:60]}", expr[: match.start()] + expr[match.end() :]
    for match in in_code(expr, r" > 0(?=\))"):
        yield "dropped > 0", expr[: match.start()] + expr[match.end() :]
    for match in re.finditer(r'(?<=[{,])\w+(?:=~|!=|!~|=)"[^"]*",?', expr):
        without = (expr[: match.start()] + expr[match.end() :]).replace(",}", "}").replace("{}", "")
        yield f"dropped {match[0]}", without


def longer(span):
    number, unit = int(span[:-1]), span[-1]
    return f"{number * 90}s" if unit == "m" else f"{number * 90}m"


def mutants():
    """What was done, and the whole file after it."""
    for start, end, name in rules():
        rule = RULES[start:end]

        def whole(text, start=start, end=end):
            return RULES[:start] + text + RULES[end:]

        yield name, "deleted", whole("")
        begin, stop = expression(rule)
        for what, expr in changed_expressions(rule[begin:stop].rstrip("\n")):
            tail = "\n" if rule[begin:stop].endswith("\n") else ""
            yield name, what, whole(rule[:begin] + expr + tail + rule[stop:])
        if match := re.search(r"^        for: (\w+)\n", rule, re.M):
            yield name, "dropped for", whole(rule.replace(match[0], ""))
            yield name, "longer for", whole(rule.replace(match[0], f"        for: {longer(match[1])}\n"))
        if match := re.search(r"severity: (critical|warning|info)", rule):
            other = "warning" if match[1] != "warning" else "info"
            yield name, f"severity {other}", whole(rule.replace(match[0], f"severity: {other}"))


def scenarios(folder):
    """One file per scenario, with its text: a broken rule mostly shows in few of them."""
    head, *tests = re.split(r"^(?=  - name: )", HOURS, flags=re.M)
    # The groups' order stands above as `  - streamgate...`, which is no scenario.
    files = []
    for place, test in enumerate(tests):
        files.append((folder / f"{place}.test.yml", test))
    return head.replace("../streamgate.rules.yml", "rules.yml"), files


def survives(mutant, head, files):
    name, _, text = mutant
    # Those that speak of the alert first; the others see what nobody thought of.
    ordered = sorted(files, key=lambda file: (f'\\"{name}\\"' not in file[1] and f'"{name}"' not in file[1]))
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        (folder / "rules.yml").write_text(text)
        for path, test in ordered:
            (folder / path.name).write_text(head + test)
        names = [path.name for path, _ in ordered]
        for first in range(0, len(names), 6):
            result = subprocess.run(
                ["promtool", "test", "rules", *names[first : first + 6]], cwd=folder, capture_output=True
            )
            if result.returncode:
                return False
    return True


def main():
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    chosen = list(mutants())[::every]
    head, files = scenarios(pathlib.Path("."))
    if survives(("", "", RULES + "\n# \n"), head, files) is False:
        fail("the scenarios fail without any mutant")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        alive = list(pool.map(lambda mutant: survives(mutant, head, files), chosen))
    survivors = [f"{name}: {what}" for (name, what, _), lives in zip(chosen, alive) if lives]
    print(f"mutated rules: {len(chosen) - len(survivors)} of {len(chosen)} noticed")
    strange = [survivor for survivor in survivors if survivor not in EQUIVALENT]
    if strange:
        fail("no scenario notices:\n" + "\n".join(strange))


if __name__ == "__main__":
    main()
