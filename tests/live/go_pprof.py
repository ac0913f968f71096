"""Go's own pprof on a live service: its views of CPU, open requests and heap."""

import gzip
import json
import os
import re
import shutil
import subprocess
import time

from service import fail, get


def go_command(env):
    """Go and an environment in which it leaves nothing outside its folder; None without it."""
    go = next(iter(env.rglob("bin/go")), None) if env else None
    if not go:
        return None, None
    home = env / "go-home"
    home.mkdir(exist_ok=True)
    paths = {"HOME": str(home), "GOCACHE": str(home / "cache"), "PPROF_TMPDIR": str(home)}
    return go, {**os.environ, **paths, "GOTELEMETRY": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}


def prepare_go(env):
    """Go builds its pprof on first use, which takes longer than the demo lasts."""
    go, environment = go_command(env)
    if go:
        subprocess.run([go, "tool", "pprof", "-h"], capture_output=True, env=environment)


class Pprof:
    """`go tool pprof` on one service; every call that names no file takes a profile of its own."""

    def __init__(self, agent, env):
        self.go, self.environment = go_command(env)
        self.live = f"{agent}/debug/pprof/profile?seconds=3"

    def view(self, *options, profile=None, typed=()):
        """What the tool prints, past its notes on fetching; without a view among the options, what it
        answers to commands that somebody types."""
        command = [self.go, "tool", "pprof", *options, profile or self.live]
        lines = "".join(f"{line}\n" for line in typed)
        result = subprocess.run(
            command, input=lines.encode(), capture_output=True, env=self.environment
        )
        if result.returncode:
            fail(f"go tool pprof {' '.join(map(str, options))}: {result.stderr.decode()}")
        return result.stdout.decode()


UNITS = {"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "mins": 60, "hrs": 3600}
UNITS |= {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def amount(text):
    """A time in seconds, or memory in bytes, as the tool prints it."""
    number, unit = re.fullmatch(r"(-?[\d.]+)([a-zA-Z]*)", text).groups()
    return float(number) * UNITS[unit]


# Every node, for a view's sum is of the nodes that it shows.
ALL = ("-nodecount=1000000", "-nodefraction=0")


def shown_and_total(text):
    """How much of the samples a view shows, and how many there are."""
    found = re.search(r"^Showing nodes accounting for (\S+), .* of (\S+) total", text, re.MULTILINE)
    if not found:
        fail(f"no sums in:\n{text[:2000]}")
    return tuple(amount(held) for held in found.groups())


def go_top(pprof):
    text = pprof.view("-top")
    own = [line for line in text.splitlines() if "streamgate::" in line]
    if not own:
        fail(f"-top names no function of StreamGate:\n{text[:3000]}")
    if not any(re.search(r"<.+ as .+>::\w", line) for line in text.splitlines()):
        fail(f"-top shows no method with its type and trait:\n{text[:3000]}")
    print("go tool pprof -top names StreamGate's own functions:")
    print("\n".join("    " + line for line in text.splitlines()[:6] + own[:4]))


def go_list(pprof, saved):
    """Lines of one function stand apart, beside their text."""
    routines = pprof.view("-list", "streamgate::", profile=saved).split("ROUTINE ====")[1:]
    number = re.compile(r"^ +(\S+) +(\S+) +(\d+):(.*)$", re.MULTILINE)
    hot = {}
    for routine in routines:
        lines = [found.groups() for found in number.finditer(routine)]
        lines = [(line, text) for _, cum, line, text in lines if cum != "." and text.strip()]
        hot[routine.splitlines()[0].strip("= ")] = lines
    name, lines = max(hot.items(), key=lambda item: len(item[1]), default=("", []))
    if len(lines) < 2:
        fail(f"-list keeps no two lines of a function apart: {list(hot)[:20]}")
    print(f"go tool pprof -list: {len(lines)} lines of {name.split(' in ')[0][:80]} stand apart")


def go_traces(pprof, saved):
    traces = pprof.view("-traces", profile=saved).split("-----------+-----")[1:]
    threads = [trace for trace in traces if re.search(r"^ +thread: +\S", trace, re.MULTILINE)]
    own = [trace for trace in threads if "streamgate::" in trace]
    inlined = [trace for trace in own if "(inline)" in trace]
    if len(threads) < 10 or not own or not inlined:
        fail(f"-traces: {len(traces)}, with a thread {len(threads)}, ours {len(own)}, "
             f"with inlined functions {len(inlined)}")
    print(f"go tool pprof -traces: {len(threads)} stacks with their thread, {len(own)} of StreamGate")


def tag_values(text, tag):
    """The values of a tag in the tool's list of tags, with their times or bytes."""
    found = re.search(rf"^ {tag}: Total .*\n((?: +\S+ .*\n)*)", text, re.MULTILINE)
    lines = found.group(1).splitlines() if found else []
    values = [re.match(r" +(\S+) \(.*?\): (.+)$", line) for line in lines]
    return {value.group(2): amount(value.group(1)) for value in values if value}


def go_tags(pprof, saved, tag, expected, *column):
    """A tag has values, and focusing on one keeps its samples and drops others."""
    values = tag_values(pprof.view("-tags", *column, profile=saved), tag)
    missing = [name for name in expected if name not in values]
    if missing or len(values) < 2:
        fail(f"-tags: {tag} has {values}, without {missing}")
    focus = max(values, key=values.get)
    pattern = f"{tag}=^{re.escape(focus)}$"
    focused = pprof.view("-top", *ALL, *column, f"-tagfocus={pattern}", profile=saved)
    shown, total = shown_and_total(focused)
    if not 0 < shown < total or abs(shown - values[focus]) > 0.02 * total:
        fail(f"-tagfocus={pattern} shows {shown} of {total} instead of {values[focus]}")
    print(f"go tool pprof -tags{' '.join(['', *column])}: {len(values)} values of {tag}; -tagfocus={focus} keeps "
          f"{100 * shown / total:.0f} %")


def go_peek(pprof, saved):
    """Callers and callees of a function that does nothing itself."""
    text = pprof.view("-peek", "streamgate::serve", profile=saved)
    blocks = re.split(r"^-+\+-+$", text, flags=re.MULTILINE)
    both = [block for block in blocks
            if re.search(r"%? *\| {3}\S.*\n(.*\n)*? .*\| streamgate::serve.*\n.*\| {3}\S", block)]
    if not both:
        fail(f"-peek shows no function of StreamGate with callers and callees:\n{text[:3000]}")
    print(f"go tool pprof -peek: {len(both)} functions with callers and callees")


def go_diff(pprof, saved):
    """The same profile differs by nothing; another one of the live service by something."""
    shown, _ = shown_and_total(pprof.view("-top", "-diff_base", saved, profile=saved))
    if shown:
        fail(f"a profile differs from itself by {shown} s")
    text = pprof.view("-top", "-diff_base", saved)
    changes = re.findall(r"^ +(-?[\d.]+m?s) +-?[\d.]+%", text, re.MULTILINE)
    fewer = [change for change in changes if change.startswith("-")]
    if not fewer or len(fewer) == len(changes):
        fail(f"-diff_base shows no change to and fro:\n{text[:3000]}")
    print(f"go tool pprof -diff_base: {len(changes)} functions changed, {len(fewer)} of them to less")


def go_goroutine(pprof, agent, folder):
    """Requests that were open when the profile was taken, which some moments have none of."""
    saved = folder / "goroutine.pb.gz"
    for _ in range(100):
        profile = get(f"{agent}/debug/pprof/goroutine")[2]
        if b"/v1/" in gzip.decompress(profile):
            break
        time.sleep(0.1)
    else:
        fail("no request was open in 100 goroutine profiles of a service under load")
    saved.write_bytes(profile)
    text = pprof.view("-top", profile=saved)
    if "Type: goroutine" not in text or "/v1/" not in text:
        fail(f"-top names no route of an open request:\n{text[:3000]}")
    values = re.search(r"^ state: Total .*\n(.*)$", pprof.view("-tags", profile=saved), re.MULTILINE)
    if not values:
        fail("-tags does not say whether open requests run or wait")
    text = get(f"{agent}/debug/pprof/goroutine?debug=1")[2].decode()
    if not re.match(r"goroutine profile: total \d+\n", text):
        fail(f"goroutine?debug=1 begins otherwise than Go's:\n{text[:200]}")
    print("go tool pprof -top of the open requests:", *pprof.view("-top", profile=saved).splitlines()[-1:])


def go_svg(pprof, saved, folder):
    if not shutil.which("dot"):
        return print("skipped: no graphviz")
    path = folder / "graph.svg"
    pprof.view("-svg", "-output", str(path), profile=saved)
    text = path.read_text()
    if "</svg>" not in text or "streamgate" not in text:
        fail("-svg drew no graph that names streamgate")
    print(f"go tool pprof -svg: {len(text)} bytes")


def go_heap_typed(pprof, live, name):
    """The guide's session: `go tool pprof` on the endpoint, and what it types there."""
    said = pprof.view(profile=live, typed=["top10", "alloc_space", "top10", f"list {name}"])
    row = r" *[\d.]+[kMG]?B +[\d.]+% .*\n"
    tops = re.findall(rf"^Showing top 10 nodes out of \d+\n.*\n((?:{row})+)", said, re.MULTILINE)
    rows = [len(top.splitlines()) for top in tops]
    if rows != [10, 10]:
        fail(f"top10, twice, shows {rows} rows:\n{said[:3000]}")
    if tops[0] == tops[1]:
        fail(f"what is in use and what was allocated are the same:\n{said[:3000]}")
    if not re.search(r"^ *([\d.]+[kMG]?B|\.) +[\d.]+[kMG]?B +\d+:", said, re.MULTILINE):
        fail(f"list {name} shows no line that allocates:\n{said[-3000:]}")
    print("go tool pprof of the heap, typed: top10, alloc_space, top10, list")


def go_heap_kept(pprof, agent, folder):
    """The largest heap so far, after the fact; the leak makes it large enough to be kept."""
    for _ in range(20):
        if json.loads(get(f"{agent}/debug/heap/stats")[2])["heap"]["kept"]:
            break
        time.sleep(1)
    else:
        fail("no heap was kept of a service that leaks 1 MiB/s")
    saved = folder / "peak.pb.gz"
    saved.write_bytes(get(f"{agent}/debug/pprof/heap?at=peak")[2])
    top = pprof.view("-top", profile=saved)
    shown, total = shown_and_total(top)
    if "kept when more was in use than ever before" not in top or total < 64 << 20:
        fail(f"the kept peak says not what it is, or is too small:\n{top[:2000]}")
    grown = pprof.view("-top", "-diff_base", saved, profile=f"{agent}/debug/pprof/heap")
    print(f"go tool pprof of the kept peak: {total / (1 << 20):.0f} MiB; since then:",
          *[line.strip() for line in grown.splitlines() if "accounting for" in line])


def go_heap(pprof, agent, folder):
    """The guide's section 4.1, on a Rust service."""
    live = f"{agent}/debug/pprof/heap"
    top = pprof.view("-top", "-nodecount=10", profile=live)
    if "Type: inuse_space" not in top or "estimated from" not in top:
        fail(f"top10 of the heap shows no memory in use:\n{top}")
    allocated = pprof.view("-top", "-sample_index=alloc_space", profile=live)
    own = re.findall(r"^ *([\d.]+)([kMG]?B) .*\b(streamgate::\S+)", allocated, re.MULTILINE)
    if "Type: alloc_space" not in allocated or not own:
        fail(f"-sample_index=alloc_space names no function of StreamGate:\n{allocated[:3000]}")
    base = folder / "heap.pb.gz"
    base.write_bytes(get(live)[2])
    name = own[0][2]
    go_heap_typed(pprof, live, re.escape(name))
    go_tags(pprof, base, "http_route", ["/v1/content/{id}", "/v1/content"], "-sample_index=alloc_space")
    same = pprof.view("-top", "-diff_base", base, profile=base)
    if not re.search(r"accounting for 0B?, ", same) and re.search(r"^ +-?[1-9]", same, re.MULTILINE):
        fail(f"a heap differs from itself:\n{same[:2000]}")
    grown = pprof.view("-top", "-sample_index=alloc_space", "-diff_base", base, profile=live)
    if not re.search(r"^ *[\d.]+[kMG]?B +[\d.]+%", grown, re.MULTILINE):
        fail(f"nothing was allocated since the base:\n{grown[:2000]}")
    delta = pprof.view("-top", profile=f"{agent}/debug/pprof/allocs?seconds=2")
    if "Type: alloc_space" not in delta or "Duration: " not in delta:
        fail(f"allocs?seconds=2 is no profile of 2 s:\n{delta[:2000]}")
    text = folder / "heap.txt"
    text.write_bytes(get(f"{live}?debug=1")[2])
    head = re.match(rb"heap profile: (\d+): (\d+) ", text.read_bytes())
    legacy = pprof.view("-raw", profile=text)
    samples = legacy.split("Samples:")[1].split("Locations")[0]
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+) +(\d+):", samples, re.MULTILINE)
    in_use = sum(int(row[3]) for row in rows)
    if not head or in_use != int(head.group(2)):
        fail(f"Go reads {in_use} bytes of debug=1, which says {head and head.group(2)}")
    print(f"go tool pprof on the heap: list {name}, alloc_space, -diff_base, debug=1 "
          f"of {in_use} bytes in use")


def go_coverage(pprof, saved):
    """However the load keeps step with the kernel's tick, the profile holds the CPU time that was used."""
    found = re.search(r"^coverage ([\d.]+): .*", pprof.view("-comments", profile=saved), re.MULTILINE)
    if not found or not 0.9 <= float(found.group(1)) <= 1.1:
        fail(f"the profile says of itself: {found and found.group()}")
    print(f"go tool pprof -comments: {found.group()}")


def go_pprof(pprof, agent, folder):
    go_top(pprof)
    saved = folder / "base.pb.gz"
    saved.write_bytes(get(f"{agent}/debug/pprof/profile?seconds=10&hz=250")[2])
    go_coverage(pprof, saved)
    go_list(pprof, saved)
    go_traces(pprof, saved)
    go_tags(pprof, saved, "thread", ["sg-db-read"])
    go_tags(pprof, saved, "http_route", ["/v1/content/{id}", "/v1/content"])
    go_peek(pprof, saved)
    go_diff(pprof, saved)
    go_goroutine(pprof, agent, folder)
    go_svg(pprof, saved, folder)
    go_heap(pprof, agent, folder)
