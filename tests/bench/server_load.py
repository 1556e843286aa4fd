"""Measures a `weir serve` under load: server_load.py WEIR SAMPLES [fairness] [scans] [weights] [load] [thirty] [hostile] [density] [swap] [canary]

Starts a new server for each part, generates documents with the program SAMPLES, and prints the measurements of its clients:

fairness   latency of a tenant's three-page documents on an idle host and while another tenant has 200 queued jobs, submitted at
           intervals and one directly after the other
scans      latency of a tenant's three-page text and scanned documents on an idle host and beside another tenant's ten scans of 300
           pages
weights    pages of two tenants with weights 3 and 1 that both submit more than the host can process
load       1,000 readers of a job's events while 200 documents a second are submitted for ten seconds
thirty     30 files in one request: time until the first page is searchable, and until all are done
hostile    latency of a tenant's documents beside three tenants that submit as many, with well-behaved and with hostile components;
           the component is `hostile-second-page.wasm` in $WEIR_HOSTILE_COMPONENTS
density    10,000 tenants, each with a pipeline of its own component (one of 200): the server's start time, its memory before and
           after each tenant's components have decided, and the latency of these decisions
swap       100 activations and 20 rollbacks of a tenant's pipeline while four tenants submit a job every 100 ms: when the changes take
           effect, and the latency of the other three tenants
canary     canaries that are as good as the stable revision, that take 15 % longer per page and that trap on one page of twenty, five
           of each until they are promoted or rolled back; the components are in `components` beside the folder of WEIR
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

from bench_server import SampleDocuments, Server
from end_to_end import total_pss_bytes


def p95(values):
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


async def measure_fairness(server, samples):
    flooding, polite = await server.create_tenant("flooding"), await server.create_tenant("polite")
    small = [samples.text_document(3) for _ in range(82)]
    draw = random.Random(1)

    async def measure_seconds(pause):
        took = []
        for _ in range(20):
            # Random pauses, so that the documents arrive at arbitrary points of the other tenant's work.
            await asyncio.sleep(pause * draw.uniform(0.5, 1.5))
            took.append((await server.time_job(polite, small.pop()))[1])
        return took

    await server.time_job(polite, small.pop())
    await server.time_job(polite, small.pop())
    idle, idle_row = await measure_seconds(0.6), await measure_seconds(0)
    for document in [samples.text_document(10) for _ in range(200)]:
        status, response = await server.submit(flooding, document)
        assert status == 202, response
    flooded, flooded_row = await measure_seconds(0.6), await measure_seconds(0)
    _, still = await server.request_json("GET", "/v1/jobs?state=queued&limit=200", flooding)
    for what, alone, beside in [("at intervals", idle, flooded), ("one after the other", idle_row, flooded_row)]:
        print(f"fairness   three pages {what}: p95 {p95(alone):.2f} s idle, {p95(beside):.2f} s beside 200 jobs: {p95(beside) / p95(alone):.2f} ×")
        print(f"           medians {statistics.median(alone):.2f} and {statistics.median(beside):.2f} s")
    print(f"           {len(still['jobs'])} of the 200 were still queued at the end")


async def measure_scans(server, samples):
    flooding, polite = await server.create_tenant("flooding"), await server.create_tenant("polite")
    kinds = {"text": (samples.text_document, 20), "scan": (samples.scanned_document, 10)}
    draw = random.Random(1)

    async def measure_seconds(kind):
        make, count = kinds[kind]
        took = []
        for document in [make(3) for _ in range(count)]:
            await asyncio.sleep(0.6 * draw.uniform(0.5, 1.5))
            took.append((await server.time_job(polite, document))[1])
        return took

    for make, _ in kinds.values():
        await server.time_job(polite, make(3))
    idle = {kind: await measure_seconds(kind) for kind in kinds}
    for document in [samples.scanned_document(300) for _ in range(10)]:
        status, response = await server.submit(flooding, document)
        assert status == 202, response
    # Wait until the rasterizer has filled its buffers.
    await asyncio.sleep(20)
    began, before = time.monotonic(), await server.metered_pages(flooding)
    beside = {kind: await measure_seconds(kind) for kind in kinds}
    pages, took = await server.metered_pages(flooding) - before, time.monotonic() - began
    for kind in kinds:
        ratio = p95(beside[kind]) / p95(idle[kind])
        print(f"scans      three pages of {kind}: p95 {p95(idle[kind]):.2f} s idle, {p95(beside[kind]):.2f} s beside ten scans of 300 pages: {ratio:.2f} ×")
        print(f"           medians {statistics.median(idle[kind]):.2f} and {statistics.median(beside[kind]):.2f} s")
    print(f"           {pages} pages of the scans in that time, {pages / took:.2f} pages/s")


async def measure_weights(server, samples):
    keys = [await server.create_tenant("three", 3), await server.create_tenant("one", 1)]
    documents = [samples.text_document(10) for _ in range(400)]
    for at, document in enumerate(documents):
        status, response = await server.submit(keys[at % 2], document)
        assert status == 202, response
    await asyncio.sleep(2)
    before = [await server.metered_pages(key) for key in keys]
    began = time.monotonic()
    await asyncio.sleep(20)
    three, one = [await server.metered_pages(key) - past for key, past in zip(keys, before, strict=True)]
    took = time.monotonic() - began
    print(f"weights    3 to 1 give {three / took:.1f} and {one / took:.1f} pages/s: {three / one:.2f} to 1")


async def measure_load(server, samples):
    readers, rate, seconds = 1000, 200, 10
    keys = [await server.create_tenant(f"reader-{number}") for number in range(4)]
    submitter = await server.create_tenant("submitter")
    documents = [samples.text_document(1) for _ in range(rate * seconds)]
    jobs = []
    for key in keys:
        status, job = await server.submit(key, samples.text_document(30))
        assert status == 202, job
        jobs.append(job["id"])
    peak, ended = 0, asyncio.Event()

    async def watch_memory():
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, await asyncio.to_thread(total_pss_bytes, server.process.pid))
            await asyncio.sleep(0.5)

    async def read_events(number):
        seen = [event["seq"] async for event in server.follow_events(keys[number % 4], jobs[number % 4])]
        assert seen == list(range(1, len(seen) + 1)), f"reader {number} missed events"
        return len(seen)

    async def submit_at(at, document):
        await asyncio.sleep(max(0, at - time.monotonic()))
        began = time.monotonic()
        status, _ = await server.submit(submitter, document)
        return status, time.monotonic() - began

    before = total_pss_bytes(server.process.pid)
    watching = asyncio.create_task(watch_memory())
    reading = [asyncio.create_task(read_events(number)) for number in range(readers)]
    start = time.monotonic()
    answers = await asyncio.gather(*(submit_at(start + n / rate, document) for n, document in enumerate(documents)))
    took = time.monotonic() - start
    read_by_all = sum(await asyncio.gather(*reading))
    ended.set()
    await watching
    times = sorted(time for _, time in answers)
    statuses = {status: sum(s == status for s, _ in answers) for status in {s for s, _ in answers}}
    print(f"load       {len(answers)} documents submitted in {took:.1f} s ({len(answers) / took:.0f}/s), statuses {statuses}")
    print(f"           median {times[len(times) // 2] * 1000:.0f} ms, p99 {times[len(times) * 99 // 100] * 1000:.0f} ms")
    print(f"           {readers} readers received {read_by_all} events, each reader all of its job's in order")
    print(f"           memory {before / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most")


async def measure_thirty(server, samples):
    key = await server.create_tenant("thirty")
    await server.time_job(key, samples.text_document(1))
    first, all_done = await server.time_job(key, *(samples.text_document(6) for _ in range(30)))
    print(f"thirty     first page of 30 files after {first:.2f} s, all 180 pages after {all_done:.2f} s: 1/{all_done / first:.0f}")


ATTACKS = ["loop", "copy", "log", "sleep", "memory", "stack", "huge-decision", "host-calls", "handles", "state", "trap", "invalid-decision"]


async def measure_hostile(server, samples):
    component = pathlib.Path(os.environ["WEIR_HOSTILE_COMPONENTS"], "hostile-second-page.wasm")
    polite = await server.create_tenant("polite")
    others = [await server.create_tenant(f"other-{number}", scopes=["ingest", "read", "components"]) for number in range(3)]
    for key in others:
        await server.push_component(key, "later", component.read_bytes())
        for name in ["good", *ATTACKS]:
            revision = {"components": {"routing": "later"}, "settings": {"attack": name}, "capabilities": ["state", "inference"]}
            await server.post_ok(key, f"/v1/pipelines/{name}/revisions", revision)
            await server.post_ok(key, f"/v1/pipelines/{name}/rollout", {"action": "activate", "revision": 1})

    async def guest_seconds():
        _, usages = zip(*[await server.request_json("GET", "/v1/usage", key) for key in others], strict=True)
        return sum(day["guest_millis"] for usage in usages for day in usage["days"]) / 1000

    async def measure_makespan(pipelines):
        ours, theirs = [], []
        documents = [[samples.text_document(5) for _ in range(12)] for _ in range(4)]
        began, before = time.monotonic(), await guest_seconds()
        for turn in range(12):
            for key, more in zip(others, documents[1:], strict=True):
                status, job = await server.submit(key, more[turn], pipeline=pipelines[turn % len(pipelines)])
                assert status == 202, job
                theirs.append(server.wait_for_job(key, job["id"]))
            if turn < 8:
                status, job = await server.submit(polite, documents[0][turn])
                assert status == 202, job
                ours.append(server.wait_for_job(polite, job["id"]))
        others_end = asyncio.gather(*theirs)
        await asyncio.gather(*ours)
        took = time.monotonic() - began
        assert not others_end.done(), "the other tenants finished first"
        await others_end
        return took, await guest_seconds() - before

    await server.time_job(polite, samples.text_document(3))
    for _ in range(2):
        (behaved, little), (attacked, much) = await measure_makespan(["good"]), await measure_makespan(ATTACKS)
        print(f"hostile    40 pages take {behaved:.1f} s beside three well-behaved tenants, {attacked:.1f} s beside three hostile ones: {attacked / behaved:.2f} ×")
        print(f"           the other tenants' components ran for {little:.1f} and {much:.1f} s")


TENANTS, DISTINCT_COMPONENTS = 10_000, 200


async def measure_density(server, samples):
    routing = pathlib.Path(os.environ["WEIR_HOSTILE_COMPONENTS"], "text-only.wasm").read_bytes()
    # A custom section makes each component different: section id, length, length of the name, name and number.
    components = [routing + bytes([0, 11, 6]) + b"number" + number.to_bytes(4, "little") for number in range(DISTINCT_COMPONENTS)]
    turns = asyncio.Semaphore(8)

    async def create_tenant_pipeline(number):
        async with turns:
            key = await server.create_tenant(f"tenant-{number}", scopes=["ingest", "components"])
            component = components[number % DISTINCT_COMPONENTS]
            await server.push_component(key, "own", component)
            await server.post_ok(key, "/v1/pipelines/own/revisions", {"components": {"routing": "own"}})
            await server.post_ok(key, "/v1/pipelines/own/rollout", {"action": "activate", "revision": 1})
            return key

    began = time.monotonic()
    keys = await asyncio.gather(*(create_tenant_pipeline(number) for number in range(TENANTS)))
    print(f"density    {TENANTS} tenants with a component and a pipeline each were created in {time.monotonic() - began:.0f} s")
    server.stop()
    began = time.monotonic()
    server.start()
    started = time.monotonic() - began
    before = total_pss_bytes(server.process.pid)
    took = []
    for key in keys:
        asked = time.monotonic()
        # The server makes a trial call of each role before it accepts a revision.
        revision = {"components": {"routing": "own"}, "settings": {"dpi": 100}}
        status, response = await server.request_json("POST", "/v1/pipelines/own/revisions", key, revision)
        took.append(time.monotonic() - asked)
        assert status == 201, response
    after, took = total_pss_bytes(server.process.pid), sorted(took)
    print(f"           the server starts in {started:.2f} s")
    print(f"           memory {before / 2**20:.0f} MiB after the start, {after / 2**20:.0f} MiB after a decision of each tenant's components")
    print(f"           decision latency including HTTP and the ledger: median {took[len(took) // 2] * 1000:.1f} ms, p99 {took[len(took) * 99 // 100] * 1000:.1f} ms")


async def measure_swap(server, samples):
    interval_seconds, swaps, period_seconds = 0.1, 100, 12
    scopes = ["ingest", "read", "components"]
    keys = [await server.create_tenant(f"tenant-{n}", scopes=scopes) for n in range(4)]
    for key in keys:
        for dpi in (72, 80, 96):
            await server.post_ok(key, "/v1/pipelines/ours/revisions", {"settings": {"dpi": dpi}})
        await server.post_ok(key, "/v1/pipelines/ours/rollout", {"action": "activate", "revision": 1})
    jobs, calls, submitted, stop = [], [], 0, asyncio.Event()

    async def run_one_job(at, content, swapping):
        key = keys[at % 4]
        began = time.monotonic()
        status, job = await server.submit(key, content, pipeline="ours")
        assert status == 202, job
        view = await server.wait_for_job(key, job["id"])
        assert [(d["done"], d["failed"]) for d in view["documents"]] == [(1, 0)], view
        jobs.append((at % 4, swapping, time.monotonic() - began, view))

    async def submit_steadily(swapping):
        nonlocal submitted
        working = []
        start, first = time.monotonic(), submitted
        while not stop.is_set():
            await asyncio.sleep(max(0, start + (submitted - first) * interval_seconds - time.monotonic()))
            content = await asyncio.to_thread(samples.text_document, 1)
            working.append(asyncio.create_task(run_one_job(submitted, content, swapping)))
            submitted += 1
        await asyncio.gather(*working)

    async def change_rollout(action, **more):
        began = time.monotonic()
        response = await server.post_ok(keys[0], "/v1/pipelines/ours/rollout", {"action": action, **more})
        calls.append((time.monotonic() - began, time.time() * 1000, response["stable"]))

    async def run_period(swapping):
        stop.clear()
        load = asyncio.create_task(submit_steadily(swapping))
        if not swapping:
            await asyncio.sleep(period_seconds)
        for number in range(swaps // 2 if swapping else 0):
            await asyncio.sleep(period_seconds / (swaps // 2))
            stable = calls[-1][2] if calls else 1
            await change_rollout("activate", revision=stable % 3 + 1)
            if number % 5 == 4:
                await change_rollout("rollback")
        stop.set()
        await load

    await server.wait_for_job(keys[0], (await server.submit(keys[0], samples.text_document(1), pipeline="ours"))[1]["id"])
    # The periods alternate, so that other load on the machine affects both.
    for swapping in (False, True, True, False):
        await run_period(swapping)
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
    print(f"           a change takes {statistics.median(took):.1f} ms (median), {took[len(took) * 99 // 100]:.1f} ms (p99), {took[-1]:.1f} ms at most")
    print(f"           of {len(ours)} jobs that started in that time {len(late)} ran the previous revision, at most {max(late, default=0):.0f} ms after the response")
    others = {swapping: sorted(t for tenant, s, t, _ in jobs if tenant and s == swapping) for swapping in (False, True)}
    figures = {s: (statistics.median(ts), ts[len(ts) * 99 // 100]) for s, ts in others.items()}
    for what, at in (("median", 0), ("p99", 1)):
        print(f"           jobs of the other tenants, {what}: {figures[True][at] * 1000:.0f} ms during activations, {figures[False][at] * 1000:.0f} ms without: {figures[True][at] / figures[False][at]:.2f} ×")


async def measure_canary(server, samples):
    folder = pathlib.Path(os.environ.get("WEIR_HOSTILE_COMPONENTS", pathlib.Path(server.weir).resolve().parent.parent / "components"))
    scopes, pages, base = ["ingest", "read", "components"], 8, 100

    async def tenant(name):
        key = await server.create_tenant(name, scopes=scopes)
        for component in ("trial-fine", "trial-slower", "trial-traps"):
            await server.push_component(key, component, (folder / f"{component}.wasm").read_bytes())
        return key

    def revision(component, dpi=base, **more):
        roles = ("routing", "batching") if component == "trial-slower" else ("routing",)
        settings = {"embed": False, "dpi": dpi, **more}
        return {"components": dict.fromkeys(roles, component), "settings": settings}

    async def run_job(key):
        status, job = await server.submit(key, await asyncio.to_thread(samples.text_document, pages), pipeline="ours")
        assert status == 202, job
        view = await server.wait_for_job(key, job["id"])
        return (view["ended_millis"] - view["started_millis"]) / pages

    # Find the resolution that takes 15 % longer than the stable revision's: alternate measurements, then interpolate.
    key, steps = await tenant("measured"), [base, 150, 200]
    for dpi in steps:
        await server.post_ok(key, "/v1/pipelines/ours/revisions", revision("trial-slower", dpi))
    paces = {dpi: [] for dpi in steps}
    for _ in range(150):
        for number, dpi in enumerate(steps, 1):
            await server.post_ok(key, "/v1/pipelines/ours/rollout", {"action": "activate", "revision": number})
            paces[dpi].append(await run_job(key))
    medians = {dpi: statistics.median(took) for dpi, took in paces.items()}
    print("canary     ms per page by dpi: " + ", ".join(f"{dpi}: {took:.1f}" for dpi, took in medians.items()))
    goal, slow = medians[base] * 1.15, steps[-1]
    for one, other in zip(steps, steps[1:]):
        if medians[one] < goal <= medians[other]:
            share = (goal - medians[one]) / (medians[other] - medians[one])
            slow = round(one + share * (other - one))
            break
    print(f"           15 % more time is {slow} dpi")
    seen = {"fine": [], "slower": [], "traps": []}

    async def run_canary(name, new):
        key = await tenant(name)
        # The stable revision has the same roles as the slow canary, so that only the resolution differs.
        stable = revision("trial-slower") if "slower" in name else revision("trial-fine")
        for body in (stable, new):
            await server.post_ok(key, "/v1/pipelines/ours/revisions", body)
        for action in ({"action": "activate", "revision": 1}, {"action": "canary", "revision": 2, "percent": 50}):
            await server.post_ok(key, "/v1/pipelines/ours/rollout", action)
        began, ran = time.monotonic(), 0
        while True:
            await run_job(key)
            ran += 1
            entry = (await server.request_json("GET", "/v1/pipelines/ours/history?limit=1", key))[1]["entries"][0]
            if entry["by"] == "canary-analysis":
                break
        assert entry["to"]["stable"] == (2 if entry["action"] == "promote" else 1), entry
        evidence = entry["evidence"]
        pace = {arm: evidence[arm]["millis"] / evidence[arm]["pages"] for arm in ("canary", "stable")}
        traps = f"{evidence['canary']['traps']} traps on {evidence['canary']['pages']} pages"
        print(f"           {name}: {entry['action']} after {ran} jobs, {time.monotonic() - began:.0f} s; {pace['canary']:.1f} against {pace['stable']:.1f} ms per page, {traps}")
        print(f"             {evidence['reason']}")
        seen[name.split("-")[0]].append((evidence, entry["action"]))

    kinds = {"fine": revision("trial-fine", name="canary"), "slower": revision("trial-slower", slow), "traps": revision("trial-traps")}
    for kind, new in kinds.items():
        for number in range(5):
            await run_canary(f"{kind}-{number}", new)
        # The ratio over all canaries of a kind, because the target was measured with the same noise.
        total = {arm: [sum(evidence[arm][what] for evidence, _ in seen[kind]) for what in ("millis", "pages")] for arm in ("canary", "stable")}
        times = (total["canary"][0] / total["canary"][1]) / (total["stable"][0] / total["stable"][1])
        actions = [action for _, action in seen[kind]]
        print(f"           {kind}: {actions.count('promote')} promoted, {actions.count('rollback')} rolled back; over all of them {times - 1:+.1%} per page")


PARTS = {
    "fairness": measure_fairness,
    "scans": measure_scans,
    "weights": measure_weights,
    "load": measure_load,
    "thirty": measure_thirty,
    "hostile": measure_hostile,
    "density": measure_density,
    "swap": measure_swap,
    "canary": measure_canary,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weir")
    parser.add_argument("samples")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="the parts to run; default: all")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            settings = ["default_quota.requests_per_second=100000", "default_quota.queued_jobs=10000", "server.overload_queue_wait_seconds=86400"]
            server = Server(options.weir, folder, settings)
            try:
                asyncio.run(PARTS[name](server, SampleDocuments(os.path.abspath(options.samples), folder)))
                server.stop()
            finally:
                server.process.kill()


main()
