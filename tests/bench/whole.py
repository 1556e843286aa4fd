"""The whole job against the plain script, in one run: whole.py WEIR ASSETS TEXT.pdf SCAN.pdf [--rounds 3]

Both start from nothing for each document and use the same models. Measured from outside for both alike: seconds from the start of
the process to the first page that a search can find and to the end, and the largest sum of proportional memory (PSS) of the
process and all below it. The rounds alternate, and the table gives medians and the ratio of medians.

The script embeds and indexes four pages at a time, as such scripts do; the last row is the script with one page at a time, whose
first page is the soonest a sequential program can have it.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent


def family(root: int) -> set[int]:
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            except OSError:
                pass
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def memory(root: int) -> int:
    total = 0
    for pid in family(root):
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def measured(command: list[str], first_page) -> dict:
    """Runs a command; `first_page` tells from a line of output whether a page can be found from then on."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.1):
            peak[0] = max(peak[0], memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    first, lines = None, []
    for line in process.stdout:
        lines.append(line)
        if first is None and first_page(line):
            first = time.monotonic() - began
    code = process.wait()
    took = time.monotonic() - began
    over.set()
    watcher.join()
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return {"first": first, "seconds": took, "peak": peak[0], "lines": lines}


def weir(binary: str, document: str) -> dict:
    with tempfile.TemporaryDirectory() as data:
        command = [binary, "run", "--json", "--data", data, document]
        result = measured(command, lambda line: '"type":"page-done"' in line and '"searchable":true' in line)
        (done,) = [json.loads(line) for line in result["lines"] if '"type":"document-done"' in line]
        return result | {"pages": done["pages"]}


def peer(assets: str, document: str, batch: int) -> dict:
    command = [sys.executable, str(HERE / "baseline.py"), document, assets, "--batch", str(batch)]
    result = measured(command, lambda _: False)
    said = json.loads(result["lines"][-1])
    return result | {"pages": said["pages"], "first": said["first_page_searchable_seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weir")
    parser.add_argument("assets")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'document':<22} {'pages':>5}  {'':<10} {'first page':>10} {'all':>8} {'pages/s':>8} {'peak MiB':>9}")
    for document in options.documents:
        ours, theirs, single = [], [], []
        for _ in range(options.rounds):
            ours.append(weir(options.weir, document))
            theirs.append(peer(options.assets, document, 4))
            single.append(peer(options.assets, document, 1))
        middle = {
            name: {key: statistics.median(run[key] for run in runs) for key in ("first", "seconds", "peak", "pages")}
            for name, runs in (("weir", ours), ("script", theirs), ("by page", single))
        }
        for name, m in middle.items():
            rate = m["pages"] / m["seconds"]
            print(
                f"{pathlib.Path(document).name:<22} {m['pages']:>5.0f}  {name:<10} {m['first']:>8.2f} s {m['seconds']:>6.2f} s"
                f" {rate:>8.2f} {m['peak'] / 2**20:>9.0f}"
            )
        w, s = middle["weir"], middle["script"]
        print(
            f"{'':<29} {'ratio':<10} {s['first'] / w['first']:>9.1f}× {s['seconds'] / w['seconds']:>6.2f}× {'':>8}"
            f" {w['peak'] / s['peak']:>8.2f}×"
        )


if __name__ == "__main__":
    main()
