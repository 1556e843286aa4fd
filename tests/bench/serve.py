"""A `weir serve` under load: serve.py WEIR SAMPLES [fairness] [scans] [weights] [load] [thirty] [hostile] [density] [swap] [canary]

Starts a server of its own for each part, with SAMPLES (the program) making the documents, and tells what its clients see:

fairness   a tenant's three-page documents, one now and then, on an idle host and while another tenant has 200 jobs waiting; and
           handed in without a pause, one after the other
scans      a tenant's three-page documents of text, and its scanned ones, on an idle host and beside ten scans of 300 pages by another
weights    pages of two tenants who both have more work than the host can do, with weights 3 and 1
load       1,000 readers of a job's events while 200 documents a second are handed in for ten seconds
thirty     30 files in one request: when the first page can be found, and when all are done
hostile    a tenant's documents beside three tenants who hand in as many, with components that behave, and with such that do
           everything a component can do to a host; those are `hostile-later.wasm` in $WEIR_HOSTILE_COMPONENTS
density    10,000 tenants, each with a pipeline of its own component (one of 200): how long the server takes to start with them, its
           memory before and after each tenant's components have decided, and how long a tenant waits for that
swap       100 swaps and 20 roll-backs of a tenant's pipeline while four tenants hand in a job every 100 ms: when they take effect, what
           the other three see of them
canary     canaries that are fine, that take 15 % longer for a page and that trap on one page of twenty, five of each beside their stable
           revision until they are judged; the components lie in `components` beside the folder of WEIR
"""

import argparse
import asyncio
import math
import os
import pathlib
import random
import statistics
import tempfile
import time

from server import Samples, Server
from whole import memory


def p95(values):
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


async def fairness(server, samples):
    flooding, polite = await server.tenant("flooding"), await server.tenant("polite")
    small = [samples.text(3) for _ in range(82)]
    draw = random.Random(1)

    async def times(pause):
        took = []
        for _ in range(20):
            # Seconds that follow no beat, so that the documents meet the others' work at any point of it.
            await asyncio.sleep(pause * draw.uniform(0.5, 1.5))
            took.append((await server.seconds(polite, small.pop()))[1])
        return took

    await server.seconds(polite, small.pop())
    await server.seconds(polite, small.pop())
    idle, idle_row = await times(0.6), await times(0)
    for document in [samples.text(10) for _ in range(200)]:
        status, said = await server.submit(flooding, document)
        assert status == 202, said
    flooded, flooded_row = await times(0.6), await times(0)
    _, still = await server.ask("GET", "/v1/jobs?state=queued&limit=200", flooding)
    for what, alone, beside in [("now and then", idle, flooded), ("in a row", idle_row, flooded_row)]:
        print(f"fairness   three pages {what}: p95 {p95(alone):.2f} s idle, {p95(beside):.2f} s beside 200 jobs: {p95(beside) / p95(alone):.2f} ×")
        print(f"           medians {statistics.median(alone):.2f} and {statistics.median(beside):.2f} s")
    print(f"           {len(still['jobs'])} of the 200 still waited at the end")


async def scans(server, samples):
    flooding, polite = await server.tenant("flooding"), await server.tenant("polite")
    kinds = {"text": (samples.text, 20), "scan": (samples.scan, 10)}
    draw = random.Random(1)

    async def times(kind):
        make, count = kinds[kind]
        took = []
        for document in [make(3) for _ in range(count)]:
            await asyncio.sleep(0.6 * draw.uniform(0.5, 1.5))
            took.append((await server.seconds(polite, document))[1])
        return took

    for make, _ in kinds.values():
        await server.seconds(polite, make(3))
    idle = {kind: await times(kind) for kind in kinds}
    for document in [samples.scan(300) for _ in range(10)]:
        status, said = await server.submit(flooding, document)
        assert status == 202, said
    # Until what can be drawn ahead has been.
    await asyncio.sleep(20)
    began, before = time.monotonic(), await server.pages(flooding)
    beside = {kind: await times(kind) for kind in kinds}
    pages, took = await server.pages(flooding) - before, time.monotonic() - began
    for kind in kinds:
        ratio = p95(beside[kind]) / p95(idle[kind])
        print(f"scans      three pages of {kind}: p95 {p95(idle[kind]):.2f} s idle, {p95(beside[kind]):.2f} s beside ten scans of 300 pages: {ratio:.2f} ×")
        print(f"           medians {statistics.median(idle[kind]):.2f} and {statistics.median(beside[kind]):.2f} s")
    print(f"           meanwhile {pages} pages of these, {pages / took:.2f} a second")


async def weights(server, samples):
    keys = [await server.tenant("three", 3), await server.tenant("one", 1)]
    documents = [samples.text(10) for _ in range(400)]
    for at, document in enumerate(documents):
        status, said = await server.submit(keys[at % 2], document)
        assert status == 202, said
    await asyncio.sleep(2)
    before = [await server.pages(key) for key in keys]
    began = time.monotonic()
    await asyncio.sleep(20)
    three, one = [await server.pages(key) - past for key, past in zip(keys, before, strict=True)]
    took = time.monotonic() - began
    print(f"weights    3 to 1 give {three / took:.1f} and {one / took:.1f} pages/s: {three / one:.2f} to 1")


async def load(server, samples):
    readers, rate, seconds = 1000, 200, 10
    keys = [await server.tenant(f"reader-{number}") for number in range(4)]
    handing_in = await server.tenant("handing-in")
    documents = [samples.text(1) for _ in range(rate * seconds)]
    jobs = []
    for key in keys:
        status, job = await server.submit(key, samples.text(30))
        assert status == 202, job
        jobs.append(job["id"])
    peak, ended = 0, asyncio.Event()

    async def watch():
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, await asyncio.to_thread(memory, server.process.pid))
            await asyncio.sleep(0.5)

    async def read(number):
        seen = [event["seq"] async for event in server.events(keys[number % 4], jobs[number % 4])]
        assert seen == list(range(1, len(seen) + 1)), f"reader {number} misses events"
        return len(seen)

    async def hand_in(at, document):
        await asyncio.sleep(max(0, at - time.monotonic()))
        began = time.monotonic()
        status, _ = await server.submit(handing_in, document)
        return status, time.monotonic() - began

    before = memory(server.process.pid)
    watching = asyncio.create_task(watch())
    reading = [asyncio.create_task(read(number)) for number in range(readers)]
    start = time.monotonic()
    answers = await asyncio.gather(*(hand_in(start + n / rate, document) for n, document in enumerate(documents)))
    took = time.monotonic() - start
    read_by_all = sum(await asyncio.gather(*reading))
    ended.set()
    await watching
    times = sorted(time for _, time in answers)
    statuses = {status: sum(s == status for s, _ in answers) for status in {s for s, _ in answers}}
    print(f"load       {len(answers)} documents handed in within {took:.1f} s ({len(answers) / took:.0f}/s), answers {statuses}")
    print(f"           median {times[len(times) // 2] * 1000:.0f} ms, p99 {times[len(times) * 99 // 100] * 1000:.0f} ms")
    print(f"           {readers} readers saw {read_by_all} events, each all of its job's in order")
    print(f"           memory {before / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most")


async def thirty(server, samples):
    key = await server.tenant("thirty")
    await server.seconds(key, samples.text(1))
    first, all_done = await server.seconds(key, *(samples.text(6) for _ in range(30)))
    print(f"thirty     first page of 30 files after {first:.2f} s, all 180 pages after {all_done:.2f} s: 1/{all_done / first:.0f}")


ATTACKS = ["loop", "copy", "log", "sleep", "memory", "stack", "answer", "questions", "handles", "state", "trap", "nonsense"]


async def hostile(server, samples):
    component = pathlib.Path(os.environ["WEIR_HOSTILE_COMPONENTS"], "hostile-later.wasm")
    polite = await server.tenant("polite")
    others = [await server.tenant(f"other-{number}", scopes=["ingest", "read", "components"]) for number in range(3)]
    for key in others:
        await server.push(key, "later", component.read_bytes())
        for name in ["good", *ATTACKS]:
            revision = {"components": {"routing": "later"}, "settings": {"attack": name}, "capabilities": ["state", "inference"]}
            await server.done(key, f"/v1/pipelines/{name}/revisions", revision)
            await server.done(key, f"/v1/pipelines/{name}/rollout", {"action": "activate", "revision": 1})

    async def guest_seconds():
        _, usages = zip(*[await server.ask("GET", "/v1/usage", key) for key in others], strict=True)
        return sum(day["guest_millis"] for usage in usages for day in usage["days"]) / 1000

    async def makespan(pipelines):
        ours, theirs = [], []
        documents = [[samples.text(5) for _ in range(12)] for _ in range(4)]
        began, before = time.monotonic(), await guest_seconds()
        for turn in range(12):
            for key, more in zip(others, documents[1:], strict=True):
                status, job = await server.submit(key, more[turn], pipeline=pipelines[turn % len(pipelines)])
                assert status == 202, job
                theirs.append(server.ended(key, job["id"]))
            if turn < 8:
                status, job = await server.submit(polite, documents[0][turn])
                assert status == 202, job
                ours.append(server.ended(polite, job["id"]))
        others_end = asyncio.gather(*theirs)
        await asyncio.gather(*ours)
        took = time.monotonic() - began
        assert not others_end.done(), "the others were through before"
        await others_end
        return took, await guest_seconds() - before

    await server.seconds(polite, samples.text(3))
    for _ in range(2):
        (behaved, little), (attacked, much) = await makespan(["good"]), await makespan(ATTACKS)
        print(f"hostile    40 pages take {behaved:.1f} s beside three others, {attacked:.1f} s beside three hostile ones: {attacked / behaved:.2f} ×")
        print(f"           the others' components ran {little:.1f} and {much:.1f} s")


DENSITY, DISTINCT = 10_000, 200


async def density(server, samples):
    routing = pathlib.Path(os.environ["WEIR_HOSTILE_COMPONENTS"], "text-only.wasm").read_bytes()
    # A section that no program reads: its kind, its length, the length of its name, its name, and which one it is.
    components = [routing + bytes([0, 11, 6]) + b"number" + number.to_bytes(4, "little") for number in range(DISTINCT)]
    turns = asyncio.Semaphore(8)

    async def settle(number):
        async with turns:
            key = await server.tenant(f"tenant-{number}", scopes=["ingest", "components"])
            component = components[number % DISTINCT]
            await server.push(key, "own", component)
            await server.done(key, "/v1/pipelines/own/revisions", {"components": {"routing": "own"}})
            await server.done(key, "/v1/pipelines/own/rollout", {"action": "activate", "revision": 1})
            return key

    began = time.monotonic()
    keys = await asyncio.gather(*(settle(number) for number in range(DENSITY)))
    print(f"density    {DENSITY} tenants with a component and a pipeline each were made within {time.monotonic() - began:.0f} s")
    server.stop()
    began = time.monotonic()
    server.start()
    started = time.monotonic() - began
    before = memory(server.process.pid)
    took = []
    for key in keys:
        asked = time.monotonic()
        # A revision is rehearsed before it is taken: each role decides once.
        revision = {"components": {"routing": "own"}, "settings": {"dpi": 100}}
        status, said = await server.ask("POST", "/v1/pipelines/own/revisions", key, revision)
        took.append(time.monotonic() - asked)
        assert status == 201, said
    after, took = memory(server.process.pid), sorted(took)
    print(f"           the server starts within {started:.2f} s")
    print(f"           memory {before / 2**20:.0f} MiB at first, {after / 2**20:.0f} MiB when each tenant's components have decided")
    print(f"           for which they wait {took[len(took) // 2] * 1000:.1f} ms in the middle, p99 {took[len(took) * 99 // 100] * 1000:.1f} ms, with all of HTTP and the ledger")


async def swap(server, samples):
    every, swaps, calm = 0.1, 100, 12
    scopes = ["ingest", "read", "components"]
    keys = [await server.tenant(f"tenant-{n}", scopes=scopes) for n in range(4)]
    for key in keys:
        for dpi in (72, 80, 96):
            await server.done(key, "/v1/pipelines/ours/revisions", {"settings": {"dpi": dpi}})
        await server.done(key, "/v1/pipelines/ours/rollout", {"action": "activate", "revision": 1})
    jobs, calls, handed_in, stop = [], [], 0, asyncio.Event()

    async def one(at, content, swapping):
        key = keys[at % 4]
        began = time.monotonic()
        status, job = await server.submit(key, content, pipeline="ours")
        assert status == 202, job
        view = await server.ended(key, job["id"])
        assert [(d["done"], d["failed"]) for d in view["documents"]] == [(1, 0)], view
        jobs.append((at % 4, swapping, time.monotonic() - began, view))

    async def steadily(swapping):
        nonlocal handed_in
        working = []
        start, first = time.monotonic(), handed_in
        while not stop.is_set():
            await asyncio.sleep(max(0, start + (handed_in - first) * every - time.monotonic()))
            content = await asyncio.to_thread(samples.text, 1)
            working.append(asyncio.create_task(one(handed_in, content, swapping)))
            handed_in += 1
        await asyncio.gather(*working)

    async def change(action, **more):
        began = time.monotonic()
        said = await server.done(keys[0], "/v1/pipelines/ours/rollout", {"action": action, **more})
        calls.append((time.monotonic() - began, time.time() * 1000, said["stable"]))

    async def period(swapping):
        stop.clear()
        load = asyncio.create_task(steadily(swapping))
        if not swapping:
            await asyncio.sleep(calm)
        for number in range(swaps // 2 if swapping else 0):
            await asyncio.sleep(calm / (swaps // 2))
            stable = calls[-1][2] if calls else 1
            await change("activate", revision=stable % 3 + 1)
            if number % 5 == 4:
                await change("rollback")
        stop.set()
        await load

    await server.ended(keys[0], (await server.submit(keys[0], samples.text(1), pipeline="ours"))[1]["id"])
    # By turns, so that what else the machine does falls on both.
    for swapping in (False, True, True, False):
        await period(swapping)
    revisions = {}
    for _, _, _, view in jobs:
        revisions.setdefault(view["pipeline_revision"], set()).add(view["revision"])
    assert all(len(hashes) == 1 for hashes in revisions.values()), revisions
    ours = [view for tenant, swapping, _, view in jobs if tenant == 0 and swapping]
    late = []
    for (_, answered, stable), following in zip(calls, [*calls[1:], (0, math.inf, None)], strict=True):
        until = following[1] - following[0] * 1000
        begun = [(view["started_millis"], view["pipeline_revision"]) for view in ours if answered < view["started_millis"] < until]
        late += [began - answered for began, revision in begun if revision != stable]
    took = sorted(took * 1000 for took, _, _ in calls)
    print(f"swap       {len(calls)} changes under {len(jobs)} jobs of four tenants, revisions {sorted(revisions)}: none failed, lost or mixed")
    print(f"           a change is answered after {statistics.median(took):.1f} ms (median), {took[len(took) * 99 // 100]:.1f} ms (p99), {took[-1]:.1f} ms at most")
    print(f"           of {len(ours)} jobs that began meanwhile {len(late)} began with what had been, {max(late, default=0):.0f} ms after the answer at most")
    others = {swapping: sorted(t for tenant, s, t, _ in jobs if tenant and s == swapping) for swapping in (False, True)}
    figures = {s: (statistics.median(ts), ts[len(ts) * 99 // 100]) for s, ts in others.items()}
    for what, at in (("median", 0), ("p99", 1)):
        print(f"           the others' jobs, {what}: {figures[True][at] * 1000:.0f} ms beside swaps, {figures[False][at] * 1000:.0f} ms without: {figures[True][at] / figures[False][at]:.2f} ×")


async def canary(server, samples):
    folder = pathlib.Path(os.environ.get("WEIR_HOSTILE_COMPONENTS", pathlib.Path(server.weir).resolve().parent.parent / "components"))
    scopes, pages, base = ["ingest", "read", "components"], 8, 100

    async def tenant(name):
        key = await server.tenant(name, scopes=scopes)
        for component in ("trial-fine", "trial-slower", "trial-traps"):
            await server.push(key, component, (folder / f"{component}.wasm").read_bytes())
        return key

    def revision(component, dpi=base, **more):
        roles = ("routing", "batching") if component == "trial-slower" else ("routing",)
        settings = {"embed": False, "dpi": dpi, **more}
        return {"components": dict.fromkeys(roles, component), "settings": settings}

    async def run(key):
        status, job = await server.submit(key, await asyncio.to_thread(samples.text, pages), pipeline="ours")
        assert status == 202, job
        view = await server.ended(key, job["id"])
        return (view["ended_millis"] - view["started_millis"]) / pages

    # What resolution takes 15 % longer than the stable revision's: measured by turns, then between the two next to it.
    key, steps = await tenant("measured"), [base, 150, 200]
    for dpi in steps:
        await server.done(key, "/v1/pipelines/ours/revisions", revision("trial-slower", dpi))
    paces = {dpi: [] for dpi in steps}
    for _ in range(150):
        for number, dpi in enumerate(steps, 1):
            await server.done(key, "/v1/pipelines/ours/rollout", {"action": "activate", "revision": number})
            paces[dpi].append(await run(key))
    medians = {dpi: statistics.median(took) for dpi, took in paces.items()}
    print("canary     ms for a page by dpi: " + ", ".join(f"{dpi}: {took:.1f}" for dpi, took in medians.items()))
    goal, slow = medians[base] * 1.15, steps[-1]
    for one, other in zip(steps, steps[1:]):
        if medians[one] < goal <= medians[other]:
            share = (goal - medians[one]) / (medians[other] - medians[one])
            slow = round(one + share * (other - one))
            break
    print(f"           15 % more takes {slow} dpi")
    seen = {"fine": [], "slower": [], "traps": []}

    async def judged(name, new):
        key = await tenant(name)
        # Of the same roles as the slow one, so that resolution is all they differ in.
        stable = revision("trial-slower") if "slower" in name else revision("trial-fine")
        for body in (stable, new):
            await server.done(key, "/v1/pipelines/ours/revisions", body)
        for action in ({"action": "activate", "revision": 1}, {"action": "canary", "revision": 2, "percent": 50}):
            await server.done(key, "/v1/pipelines/ours/rollout", action)
        began, ran = time.monotonic(), 0
        while True:
            await run(key)
            ran += 1
            entry = (await server.ask("GET", "/v1/pipelines/ours/history?limit=1", key))[1]["entries"][0]
            if entry["by"] == "judge":
                break
        assert entry["to"]["stable"] == (2 if entry["action"] == "promote" else 1), entry
        evidence = entry["evidence"]
        pace = {arm: evidence[arm]["millis"] / evidence[arm]["pages"] for arm in ("canary", "stable")}
        traps = f"{evidence['canary']['traps']} traps on {evidence['canary']['pages']} pages"
        print(f"           {name}: {entry['action']} after {ran} jobs, {time.monotonic() - began:.0f} s; {pace['canary']:.1f} against {pace['stable']:.1f} ms for a page, {traps}")
        print(f"             {evidence['reason']}")
        seen[name.split("-")[0]].append((evidence, entry["action"]))

    kinds = {"fine": revision("trial-fine", name="canary"), "slower": revision("trial-slower", slow), "traps": revision("trial-traps")}
    for kind, new in kinds.items():
        for number in range(5):
            await judged(f"{kind}-{number}", new)
        # What it was, by all trials: what was aimed at was measured with the same noise.
        total = {arm: [sum(evidence[arm][what] for evidence, _ in seen[kind]) for what in ("millis", "pages")] for arm in ("canary", "stable")}
        times = (total["canary"][0] / total["canary"][1]) / (total["stable"][0] / total["stable"][1])
        actions = [action for _, action in seen[kind]]
        print(f"           {kind}: {actions.count('promote')} promoted, {actions.count('rollback')} rolled back; over all of them {times - 1:+.1%} for a page")


PARTS = {
    "fairness": fairness,
    "scans": scans,
    "weights": weights,
    "load": load,
    "thirty": thirty,
    "hostile": hostile,
    "density": density,
    "swap": swap,
    "canary": canary,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weir")
    parser.add_argument("samples")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all if none are named")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            settings = ["quota.requests_per_second=100000", "quota.queued_jobs=10000", "server.max_wait_seconds=86400"]
            server = Server(options.weir, folder, settings)
            try:
                asyncio.run(PARTS[name](server, Samples(os.path.abspath(options.samples), folder)))
                server.stop()
            finally:
                server.process.kill()


main()
