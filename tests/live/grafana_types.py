"""Holds the dashboards against Grafana's own types: npm's @grafana/schema, by the TypeScript compiler.

The packages are in a throw-away folder. Where npm cannot be had it is a line `skipped: why`. Exits 1 with what
the compiler says, and also when it says nothing of a dashboard that was broken on purpose.
"""

import json
import pathlib
import subprocess
import tempfile

from npm import installed
from service import ROOT, fail

TYPES = ROOT / "tests" / "live" / "grafana_types"
# Panels with types of their own; the others, rows and flame graphs, are as the dashboard's type has them.
TYPED = ["heatmap", "stat", "table", "timeseries"]
OPTIONS = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler --target es2022"


def panels(board):
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def program(board):
    """A dashboard as a program that compiles if it is of Grafana's types; and how many typed panels it has."""
    lines = ['import type { Board, Panels } from "./board";', f"export const board: Board = {json.dumps(board)};"]
    typed = [panel for panel in panels(board) if panel["type"] in TYPED]
    for panel in typed:
        name, kind = f"panel{panel['id']}", panel["type"]
        lines.append(f'export const {name}: Panels["{kind}"] = {json.dumps(panel)};')
    return "\n".join(lines), len(typed)


def compiled(folder, *names):
    command = ["node", "node_modules/typescript/bin/tsc", *OPTIONS.split(), "board.ts", *names]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return result.returncode == 0, result.stdout[:3000]


def broken(board):
    """The dashboard with one thing wrong each time, and what."""
    wrong = json.loads(json.dumps(board))
    wrong["graphTooltip"] = "often"
    yield "a word where a number belongs", wrong
    wrong = json.loads(json.dumps(board))
    graph = next(panel for panel in panels(wrong) if panel["type"] == "timeseries")
    graph["options"]["legend"]["displayMode"] = "lists"
    yield "a mode that no legend has", wrong
    wrong = json.loads(json.dumps(board))
    del wrong["links"][0]["keepTime"]
    yield "a link without what every link has", wrong


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if not installed(TYPES, folder):
            return
        boards = {path.stem: json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}
        count = 0
        for name, board in boards.items():
            text, typed = program(board)
            (folder / f"{name}.ts").write_text(text)
            count += typed
        good, said = compiled(folder, *(f"{name}.ts" for name in boards))
        if not good:
            fail(f"Grafana's types:\n{said}")
        for what, wrong in broken(next(iter(boards.values()))):
            (folder / "broken.ts").write_text(program(wrong)[0])
            if compiled(folder, "broken.ts")[0]:
                fail(f"the types do not notice {what}")
        print(f"Grafana's types: {len(boards)} dashboards and {count} panels hold, three broken ones do not")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
