"""Compares Weir with the plain script on whole documents, in one run: end_to_end.py WEIR ASSETS TEXT.pdf SCAN.pdf [--rounds 3]

Both programs start without any data for each document and use the same models. The same measurements are made for both from
outside: seconds from the start of the process to the first searchable page and to the end, and the largest sum of proportional
memory (PSS) of the process and its descendants. The rounds alternate, and the table shows medians and the ratio of medians.

The script embeds and indexes four pages at a time, as such scripts do. The last row is the script with one page at a time, which
gives the earliest first page that a sequential program can reach.
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


def process_tree(root: int) -> set[int]:
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


def total_pss_bytes(root: int) -> int:
    total = 0
    for pid in process_tree(root):
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run_measured(command: list[str], first_page) -> dict:
    """Runs a command and measures it. `first_page` returns whether a line of output reports the first searchable page."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.1):
            peak[0] = max(peak[0], total_pss_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    first, lines = None, []
    for line in process.stdout:
        lines.append(line)
        if first is None and first_page(line):
            first = time.monotonic() - started
    code = process.wait()
    took = time.monotonic() - started
    over.set()
    watcher.join()
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return {"first": first, "seconds": took, "peak": peak[0], "lines": lines}


def run_weir(binary: str, document: str) -> dict:
    with tempfile.TemporaryDirectory() as data:
        command = [binary, "run", "--json", "--data", data, document]
        result = run_measured(command, lambda line: '"type":"page-done"' in line and '"searchable":true' in line)
        (done,) = [json.loads(line) for line in result["lines"] if '"type":"document-done"' in line]
        return result | {"pages": done["pages"]}


def run_script(assets: str, document: str, batch: int) -> dict:
    command = [sys.executable, str(HERE / "baseline.py"), document, assets, "--batch", str(batch)]
    result = run_measured(command, lambda _: False)
    report = json.loads(result["lines"][-1])
    return result | {"pages": report["pages"], "first": report["first_page_searchable_seconds"]}


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
            ours.append(run_weir(options.weir, document))
            theirs.append(run_script(options.assets, document, 4))
            single.append(run_script(options.assets, document, 1))
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
