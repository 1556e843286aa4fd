"""The web page as its users have it: a desk in light colours, a phone in dark ones, and nothing but a keyboard.

Every step waits for what it is about, never for a time. Each screenshot is written to a folder to be looked at.
"""

import os
import re
import subprocess
import sys
import tempfile
import traceback

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from server import Server

QUESTION = "Which of the three roller gates is opened first?"
ANSWER = "Gate Two is opened first"
# A page of text takes a second or so on a slow machine; a document of them some more.
PATIENCE = 180_000

DEVICES = {
    "desk": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
        "reduced_motion": "reduce",
    },
}


class Visit:
    """A browser window of its own, and what went wrong in it."""

    def __init__(self, browser, server, name, pictures):
        self.server, self.name, self.pictures = server, name, pictures
        self.context = browser.new_context(**DEVICES[name])
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.troubles = []
        self.expected = []
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("console", self.heard)
        self.page.on("request", self.requested)

    def heard(self, message):
        if message.type == "error" and not any(re.search(known, message.text) for known in self.expected):
            self.troubles.append(f"console: {message.text}")

    def requested(self, request):
        if not request.url.startswith((self.server.base, "blob:" + self.server.base)):
            self.troubles.append(f"asked elsewhere: {request.url}")

    def look(self, what, whole=False):
        """A screenshot, no part of which may lie beside the window, and an audit of what is on it."""
        self.page.screenshot(path=os.path.join(self.pictures, f"{self.name}-{what}.png"), full_page=whole)
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{what}: {wider} px stand beside the window"
        found = Axe().run(self.page)
        for violation in found.response["violations"]:
            nodes = ", ".join(str(node["target"]) for node in violation["nodes"][:3])
            self.troubles.append(f"{what}: {violation['id']}: {violation['help']}: {nodes}")

    def sign_in(self):
        page = self.page
        page.goto(self.server.base + "/")
        expect(page.get_by_label("Key")).to_be_focused()
        self.look("sign-in")
        self.expected.append("401")
        page.keyboard.type("weir_000000000000_nothing")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
        self.look("refused")
        self.expected.clear()
        page.get_by_label("Key").fill(self.server.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    def hand_in(self, *files):
        """Chooses files; gives the card of their job."""
        before = self.page.locator("#jobs article").count()
        self.page.locator("#files").set_input_files(list(files))
        expect(self.page.locator("#jobs article")).to_have_count(before + 1, timeout=PATIENCE)
        return self.page.locator("#jobs article").first

    def close(self):
        self.context.close()
        assert not self.troubles, "\n".join(self.troubles)


def state(card):
    return card.locator(".chip")


def fills_live(visit, samples):
    """Pages appear while the job runs, and the job ends with all of them."""
    card = visit.hand_in(os.path.join(samples, "handbook.pdf"), os.path.join(samples, "live.pdf"))
    leaves = card.locator(".leaf")
    done = card.locator(".leaf[data-state=done]")
    expect(done.first).to_be_visible(timeout=PATIENCE)
    seen, of = done.count(), leaves.count()
    assert state(card).inner_text() == "running" and seen < of, f"not live: {seen} of {of} when the first was seen"
    expect(card.locator(".document .message", has_text="%").first).to_be_visible()
    expect(card.locator("canvas.drawn").first).to_be_visible(timeout=PATIENCE)
    visit.look("running", whole=True)
    expect(state(card)).to_have_text("done", timeout=PATIENCE)
    expect(card.locator(".leaf:not([data-state=done])")).to_have_count(0)
    visit.look("done", whole=True)


def says_it_in_short(visit, samples):
    """A summary is there when its job has ended, and a sentence of it leads to where it stands."""
    page = visit.page
    page.locator("#drop .options > summary").click()
    page.get_by_label("summarize").check()
    page.get_by_label("do again what is done").check()
    card = visit.hand_in(os.path.join(samples, "handbook.pdf"))
    expect(state(card)).to_have_text("done", timeout=PATIENCE)
    page.get_by_label("summarize").uncheck()
    page.get_by_label("do again what is done").uncheck()
    page.locator("#drop .options > summary").click()
    summary = card.get_by_role("region", name="Summary")
    sentence = summary.locator(".quote").first
    expect(sentence).to_be_visible()
    summary.locator("details > summary").click()
    expect(summary.locator("details .quote").first).to_be_visible()
    visit.look("summary", whole=True)
    sentence.press("Enter")
    expect(page.locator("#viewer-box")).to_be_visible()
    visit.look("summary-box")
    page.keyboard.press("Escape")
    expect(sentence).to_be_focused()


def finds_the_place(visit):
    """The box on the page is the one that the host says."""
    page = visit.page
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.get_by_label("What to look for")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    hit = page.locator(".hit", has_text=re.compile(ANSWER.replace(" ", r"\s+"))).first
    expect(hit).to_be_visible()
    expect(hit.locator("canvas.drawn")).to_be_visible()
    marked = {word.lower() for word in page.locator(".hit mark").all_inner_texts()}
    forms = re.compile("three|roller(s|ed)?|gate(s|d)?|open(s|ed|ing)?|first")
    assert marked and all(forms.fullmatch(word) for word in marked), f"marked: {marked}"
    visit.look("hits")
    place = [node.inner_text() for node in page.locator(".hit .passage .name").all()]
    index = place.index(hit.locator(".passage .name").inner_text())
    said = visit.server.ask("/v1/search", {"query": QUESTION, "top_k": 10})["hits"][index]["box"]
    hit.press("Enter")
    expect(page.locator("#viewer-box")).to_be_visible()
    shown = page.evaluate(
        """() => {
            const [image, box] = ["viewer-image", "viewer-box"].map((id) => document.getElementById(id).getBoundingClientRect());
            return {
                x: (box.x - image.x) / image.width, y: (box.y - image.y) / image.height,
                width: box.width / image.width, height: box.height / image.height,
                inside: box.top >= 0 && box.bottom <= innerHeight,
            };
        }"""
    )
    for side in ("x", "y", "width", "height"):
        assert abs(shown[side] - said[side]) < 0.01, f"{side}: {shown} is not {said}"
    assert shown["inside"], f"the box is not in sight: {shown}"
    title = page.locator("#viewer-title")
    expect(title).to_have_text(re.compile(r"Page \d+ of \d+ · "))
    visit.look("box")
    at, pages = map(int, re.match(r"Page (\d+) of (\d+)", title.inner_text()).groups())
    page.keyboard.press("End")
    expect(title).to_contain_text(f"Page {pages} of {pages} ")
    expect(page.locator("#viewer-after")).to_be_disabled()
    expect(page.locator("#viewer-box")).to_be_hidden()
    page.keyboard.press("Home")
    expect(title).to_contain_text(f"Page 1 of {pages} ")
    for _ in range(at - 1):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-box")).to_be_visible()
    page.keyboard.press("ArrowLeft" if at > 1 else "ArrowRight")
    expect(page.locator("#viewer-box")).to_be_hidden()

    # Back closes the viewer and nothing else, whatever was leafed through; Forward opens it again.
    page.go_back()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(hit).to_be_focused()
    assert page.url.endswith("#/search"), page.url
    page.go_forward()
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(hit).to_be_focused()
    hit.press("Enter")
    page.locator("#viewer-close").click()
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_forward()
    expect(page.locator("#viewer")).to_be_hidden()


def finds_nothing(visit):
    """What no passage is about has no confident hits."""
    page = visit.page
    field = page.get_by_label("What to look for")
    field.fill("zqxv brontosaurus karaoke")
    field.press("Enter")
    expect(page.locator("#found")).to_have_text("No passage matches this.")
    expect(page.locator(".hit")).to_have_count(0)
    visit.look("nothing")
    page.get_by_role("button", name=re.compile(r"Show \d+ weak match")).click()
    expect(page.locator(".hit.weak").first).to_be_visible()
    expect(page.locator(".hit:not(.weak)")).to_have_count(0)
    visit.look("weak")


def shows_partial_success(visit, samples):
    """One bad file of two: the job is neither done nor failed, and says at the top which file and why."""
    page = visit.page
    page.get_by_role("link", name="Jobs", exact=True).click()
    card = visit.hand_in(os.path.join(samples, "handbook.pdf"), os.path.join(samples, "broken.pdf"))
    expect(state(card)).to_have_text("1 of 2 files done", timeout=PATIENCE)
    assert state(card).get_attribute("data-state") == "partial"
    reason = card.locator(".reasons span")
    expect(reason).to_have_text(re.compile("^broken.pdf: .+"))
    expect(reason).to_be_in_viewport()
    assert card.inner_text().count("broken.pdf:") == 1, card.inner_text()
    expect(card.get_by_role("button", name="Retry")).to_be_visible()
    visit.look("partial")
    card.locator(".job > summary").click()
    expect(card.locator("details.job")).not_to_have_attribute("open", "")
    expect(reason).to_be_visible()


def tells_of_use(visit):
    page = visit.page
    page.get_by_role("link", name="Usage", exact=True).click()
    row = page.locator(".quota", has_text="Pages today")
    expect(row).to_be_visible()
    assert re.search(r"[1-9]", row.locator(".figure").inner_text()), row.inner_text()
    visit.look("usage", whole=True)


def keeps_documents(visit):
    """Documents are listed, open, and go for good when they are deleted."""
    page = visit.page
    page.get_by_role("link", name="Documents", exact=True).click()
    cards = page.locator("#documents article")
    expect(cards).to_have_count(2)
    scan = cards.filter(has_text="live.pdf")
    scan.locator("summary").click()
    expect(scan.locator("canvas.drawn").first).to_be_visible()
    told = cards.filter(has_text="handbook.pdf")
    told.locator("summary").first.click()
    expect(told.get_by_role("region", name="Summary").locator(".quote").first).to_be_visible()
    visit.look("documents", whole=True)
    scan.get_by_role("button", name="Delete").click()
    visit.look("question")
    page.get_by_role("button", name="Keep").click()
    expect(cards).to_have_count(2)
    scan.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(cards).to_have_count(1)
    assert len(visit.server.ask("/v1/documents")["documents"]) == 1


def cancels_and_retries(visit, samples):
    page = visit.page
    page.get_by_role("link", name="Jobs", exact=True).click()
    card = visit.hand_in(os.path.join(samples, "scan.pdf"))
    expect(card.locator(".leaf[data-state=done]").first).to_be_visible(timeout=PATIENCE)
    card.get_by_role("button", name="Cancel").click()
    expect(state(card)).to_have_text("cancelled", timeout=PATIENCE)
    expect(card.locator(".leaf[data-state=gone]").first).to_be_visible()
    visit.look("cancelled", whole=True)
    card.get_by_role("button", name="Retry").click()
    again = page.locator("#jobs article").first
    expect(state(again)).to_have_text("done", timeout=PATIENCE)


def outlives_the_host(visit, samples):
    """The host is killed in mid-job and started again: the page goes on by itself, and every page is there once."""
    page = visit.page
    visit.expected += ["ERR_", "Failed to load", "Failed to fetch"]
    card = visit.hand_in(os.path.join(samples, "book.pdf"))
    expect(card.locator(".leaf[data-state=done]").first).to_be_visible(timeout=PATIENCE)
    visit.server.kill()
    expect(page.locator("article.waits")).to_have_count(1)
    visit.look("host-gone")
    visit.server.start()
    expect(page.locator("article.waits")).to_have_count(0, timeout=PATIENCE)
    expect(state(card)).to_have_text("done", timeout=PATIENCE)
    expect(card.locator(".leaf:not([data-state=done])")).to_have_count(0)
    assert page.get_by_text("Sign out").is_visible()


def explains_the_interface(visit):
    page = visit.page
    page.goto(visit.server.base + "/docs")
    operations = page.locator(".operation")
    expect(operations.first).to_be_visible()
    paths = visit.server.ask("/openapi.json")["paths"]
    methods = sum(method in ("get", "post", "put", "patch", "delete") for item in paths.values() for method in item)
    expect(operations).to_have_count(methods)
    visit.look("docs")
    operations.nth(3).scroll_into_view_if_needed()
    visit.look("docs-operation")
    page.goto(visit.server.base + "/problems")
    expect(page.get_by_role("link", name="not-found")).to_be_visible()
    visit.look("problems")


def write_samples(program, folder):
    """The samples, scans that take long enough to be watched and to be cancelled, and a book that takes long enough to be interrupted."""
    subprocess.run([program, folder], check=True)
    for kind, pages, name in (("scanned-book", 10, "live.pdf"), ("scanned-book", 24, "scan.pdf"), ("book", 300, "book.pdf")):
        subprocess.run([program, "--only", kind, "--pages", str(pages), os.path.join(folder, name)], check=True)
    with open(os.path.join(folder, "broken.pdf"), "w", encoding="utf-8") as broken:
        broken.write("This is no PDF.\n")


def main(weir, program, pictures):
    os.makedirs(pictures, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        samples = os.path.join(folder, "samples")
        write_samples(program, samples)
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=os.environ["WEIR_CHROMIUM"], args=sandbox)
        failed, passed = 0, 0
        for name in DEVICES:
            server = Server(weir, os.path.join(folder, name))
            visit = Visit(browser, server, name, pictures)
            steps = [
                ("signs in", lambda: visit.sign_in()),
                ("fills live", lambda: fills_live(visit, samples)),
                ("says it in short", lambda: says_it_in_short(visit, samples)),
                ("finds the place", lambda: finds_the_place(visit)),
                ("finds nothing", lambda: finds_nothing(visit)),
                ("shows partial success", lambda: shows_partial_success(visit, samples)),
                ("tells of use", lambda: tells_of_use(visit)),
                ("keeps documents", lambda: keeps_documents(visit)),
                ("cancels and retries", lambda: cancels_and_retries(visit, samples)),
                ("outlives the host", lambda: outlives_the_host(visit, samples)),
                ("explains the interface", lambda: explains_the_interface(visit)),
                ("has nothing to complain of", lambda: visit.close()),
            ]
            for title, step in steps:
                try:
                    step()
                    passed += 1
                    print(f"ok      {name} {title}", flush=True)
                except Exception:
                    failed += 1
                    print(f"FAILED  {name} {title}\n{traceback.format_exc()}", flush=True)
                    if not visit.page.is_closed():
                        visit.page.screenshot(path=os.path.join(pictures, f"{name}-failed.png"))
                    break
            server.stop()
        browser.close()
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "target/browser"))
