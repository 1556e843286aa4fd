"""Tests the web page in a desktop window with a light color scheme and on a phone with a dark one, mostly by keyboard.

Every step waits for a condition, never for a fixed time. Each screenshot is written to a folder for inspection.
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
# Timeout for jobs, in milliseconds. A text page takes about a second on a slow machine.
JOB_TIMEOUT_MILLIS = 180_000

DEVICES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
        "reduced_motion": "reduce",
    },
}


class BrowserSession:
    """A browser window and the problems that occurred in it."""

    def __init__(self, browser, server, name, screenshots):
        self.server, self.name, self.screenshots = server, name, screenshots
        self.context = browser.new_context(**DEVICES[name])
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.problems = []
        self.expected = []
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self.on_console_message)
        self.page.on("request", self.on_request)

    def on_console_message(self, message):
        if message.type == "error" and not any(re.search(known, message.text) for known in self.expected):
            self.problems.append(f"console: {message.text}")

    def on_request(self, request):
        if not request.url.startswith((self.server.base, "blob:" + self.server.base)):
            self.problems.append(f"request to another host: {request.url}")

    def check_screen(self, what, whole=False):
        """Takes a screenshot, checks that nothing overflows the window, and runs an accessibility audit."""
        self.page.screenshot(path=os.path.join(self.screenshots, f"{self.name}-{what}.png"), full_page=whole)
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{what}: the content is {wider} px wider than the window"
        found = Axe().run(self.page)
        for violation in found.response["violations"]:
            nodes = ", ".join(str(node["target"]) for node in violation["nodes"][:3])
            self.problems.append(f"{what}: {violation['id']}: {violation['help']}: {nodes}")

    def sign_in(self):
        page = self.page
        page.goto(self.server.base + "/")
        expect(page.get_by_label("Key")).to_be_focused()
        self.check_screen("sign-in")
        self.expected.append("401")
        page.keyboard.type("weir_000000000000_nothing")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
        self.check_screen("refused")
        self.expected.clear()
        page.get_by_label("Key").fill(self.server.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    def upload_files(self, *files):
        """Uploads files. Returns the card of their job."""
        before = self.page.locator("#jobs article").count()
        self.page.locator("#file-input").set_input_files(list(files))
        expect(self.page.locator("#jobs article")).to_have_count(before + 1, timeout=JOB_TIMEOUT_MILLIS)
        return self.page.locator("#jobs article").first

    def close_and_check(self):
        self.context.close()
        assert not self.problems, "\n".join(self.problems)


def state_chip(card):
    return card.locator(".badge")


def check_live_progress(session, samples):
    """Pages appear while the job runs, and the job ends with all of them."""
    card = session.upload_files(os.path.join(samples, "handbook.pdf"), os.path.join(samples, "live.pdf"))
    leaves = card.locator(".page-thumbnail")
    done = card.locator(".page-thumbnail[data-state=done]")
    expect(done.first).to_be_visible(timeout=JOB_TIMEOUT_MILLIS)
    seen, of = done.count(), leaves.count()
    assert state_chip(card).inner_text() == "running" and seen < of, f"not live: {seen} of {of} pages were done when the first one was shown"
    expect(card.locator(".job-document .status-message", has_text="%").first).to_be_visible()
    expect(card.locator("canvas.loaded").first).to_be_visible(timeout=JOB_TIMEOUT_MILLIS)
    session.check_screen("running", whole=True)
    expect(state_chip(card)).to_have_text("done", timeout=JOB_TIMEOUT_MILLIS)
    expect(card.locator(".page-thumbnail:not([data-state=done])")).to_have_count(0)
    session.check_screen("done", whole=True)


def check_summary(session, samples):
    """A summary is shown when its job has ended, and a sentence of it opens the page where it is quoted from."""
    page = session.page
    page.locator("#upload-form .upload-options > summary").click()
    page.get_by_label("Summarize").check()
    page.get_by_label("Process finished pages again").check()
    card = session.upload_files(os.path.join(samples, "handbook.pdf"))
    expect(state_chip(card)).to_have_text("done", timeout=JOB_TIMEOUT_MILLIS)
    page.get_by_label("Summarize").uncheck()
    page.get_by_label("Process finished pages again").uncheck()
    page.locator("#upload-form .upload-options > summary").click()
    summary = card.get_by_role("region", name="Summary")
    sentence = summary.locator(".quote").first
    expect(sentence).to_be_visible()
    summary.locator("details > summary").click()
    expect(summary.locator("details .quote").first).to_be_visible()
    session.check_screen("summary", whole=True)
    sentence.press("Enter")
    expect(page.locator("#viewer-box")).to_be_visible()
    session.check_screen("summary-box")
    page.keyboard.press("Escape")
    expect(sentence).to_be_focused()


def wait_until_viewer_left_history(page):
    """Waits until a viewer that was closed by key or button is hidden and its entry is removed from the browser's history."""
    expect(page.locator("#viewer")).to_be_hidden()
    page.wait_for_function("() => !history.state?.viewer")


def check_hit_opens_at_box(session):
    """The box on the page is the one in the search response."""
    page = session.page
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.get_by_label("Search text")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    hit = page.locator(".hit", has_text=re.compile(ANSWER.replace(" ", r"\s+"))).first
    expect(hit).to_be_visible()
    expect(hit.locator("canvas.loaded")).to_be_visible()
    marked = {word.lower() for word in page.locator(".hit mark").all_inner_texts()}
    forms = re.compile("three|roller(s|ed)?|gate(s|d)?|open(s|ed|ing)?|first")
    assert marked and all(forms.fullmatch(word) for word in marked), f"marked: {marked}"
    session.check_screen("hits")
    place = [node.inner_text() for node in page.locator(".hit .passage .name").all()]
    index = place.index(hit.locator(".passage .name").inner_text())
    box = session.server.request_json("/v1/search", {"query": QUESTION, "top_k": 10})["hits"][index]["box"]
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
        assert abs(shown[side] - box[side]) < 0.01, f"{side}: the box is at {shown}, expected {box}"
    assert shown["inside"], f"the box is outside the window: {shown}"
    title = page.locator("#viewer-title")
    expect(title).to_have_text(re.compile(r"Page \d+ of \d+ · "))
    session.check_screen("box")
    at, pages = map(int, re.match(r"Page (\d+) of (\d+)", title.inner_text()).groups())
    page.keyboard.press("End")
    expect(title).to_contain_text(f"Page {pages} of {pages} ")
    expect(page.locator("#viewer-next")).to_be_disabled()
    expect(page.locator("#viewer-box")).to_be_hidden()
    page.keyboard.press("Home")
    expect(title).to_contain_text(f"Page 1 of {pages} ")
    for _ in range(at - 1):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-box")).to_be_visible()
    page.keyboard.press("ArrowLeft" if at > 1 else "ArrowRight")
    expect(page.locator("#viewer-box")).to_be_hidden()

    # Back closes only the viewer, however many pages were turned; Forward opens it again.
    page.go_back()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(hit).to_be_focused()
    assert page.url.endswith("#/search"), page.url
    page.go_forward()
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("Escape")
    wait_until_viewer_left_history(page)
    expect(hit).to_be_focused()
    hit.press("Enter")
    page.locator("#viewer-close").click()
    wait_until_viewer_left_history(page)
    page.go_back()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_forward()
    expect(page.locator("#viewer")).to_be_hidden()


def check_weak_hits(session):
    """A query that matches no passage has only weak hits."""
    page = session.page
    field = page.get_by_label("Search text")
    field.fill("zqxv brontosaurus karaoke")
    field.press("Enter")
    expect(page.locator("#search-status")).to_have_text("No passage matches this.")
    expect(page.locator(".hit")).to_have_count(0)
    session.check_screen("nothing")
    page.get_by_role("button", name=re.compile(r"Show \d+ weak match")).click()
    expect(page.locator(".hit.weak").first).to_be_visible()
    expect(page.locator(".hit:not(.weak)")).to_have_count(0)
    session.check_screen("weak")


def check_partial_success(session, samples):
    """With one bad file of two, the job is neither done nor failed, and the file and reason are shown at the top."""
    page = session.page
    page.get_by_role("link", name="Jobs", exact=True).click()
    card = session.upload_files(os.path.join(samples, "handbook.pdf"), os.path.join(samples, "broken.pdf"))
    expect(state_chip(card)).to_have_text("1 of 2 files done", timeout=JOB_TIMEOUT_MILLIS)
    assert state_chip(card).get_attribute("data-state") == "partial"
    reason = card.locator(".failure-reasons span")
    expect(reason).to_have_text(re.compile("^broken.pdf: .+"))
    expect(reason).to_be_in_viewport()
    assert card.inner_text().count("broken.pdf:") == 1, card.inner_text()
    expect(card.get_by_role("button", name="Retry")).to_be_visible()
    session.check_screen("partial")
    # The reason also shows while the card is closed. The card of a job that has ended before it is listed is closed from the start.
    details = card.locator("details.collapsible")
    if details.evaluate("details => details.open"):
        card.locator(".collapsible > summary").click()
    expect(details).not_to_have_attribute("open", "")
    expect(reason).to_be_visible()


def check_usage(session):
    page = session.page
    page.get_by_role("link", name="Usage", exact=True).click()
    row = page.locator(".quota", has_text="Pages today")
    expect(row).to_be_visible()
    assert re.search(r"[1-9]", row.locator(".quota-value").inner_text()), row.inner_text()
    session.check_screen("usage", whole=True)


def check_nodes(session):
    """A key with the scope admin sees the nodes and their jobs."""
    page = session.page
    page.get_by_role("link", name="Nodes", exact=True).click()
    row = page.locator("#nodes tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("alive")
    expect(row).to_contain_text("serves clients, runs jobs")
    session.check_screen("nodes", whole=True)


def check_documents(session):
    """Documents are listed, can be opened, and disappear when they are deleted."""
    page = session.page
    page.get_by_role("link", name="Documents", exact=True).click()
    cards = page.locator("#documents article")
    expect(cards).to_have_count(2)
    scan = cards.filter(has_text="live.pdf")
    scan.locator("summary").click()
    expect(scan.locator("canvas.loaded").first).to_be_visible()
    handbook = cards.filter(has_text="handbook.pdf")
    handbook.locator("summary").first.click()
    expect(handbook.get_by_role("region", name="Summary").locator(".quote").first).to_be_visible()
    session.check_screen("documents", whole=True)
    scan.get_by_role("button", name="Delete").click()
    session.check_screen("question")
    page.get_by_role("button", name="Cancel").click()
    expect(cards).to_have_count(2)
    scan.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(cards).to_have_count(1)
    assert len(session.server.request_json("/v1/documents")["documents"]) == 1


def check_cancel_and_retry(session, samples):
    page = session.page
    page.get_by_role("link", name="Jobs", exact=True).click()
    card = session.upload_files(os.path.join(samples, "scan.pdf"))
    expect(card.locator(".page-thumbnail[data-state=done]").first).to_be_visible(timeout=JOB_TIMEOUT_MILLIS)
    card.get_by_role("button", name="Cancel").click()
    expect(state_chip(card)).to_have_text("cancelled", timeout=JOB_TIMEOUT_MILLIS)
    expect(card.locator(".page-thumbnail[data-state=not-processed]").first).to_be_visible()
    session.check_screen("cancelled", whole=True)
    card.get_by_role("button", name="Retry").click()
    again = page.locator("#jobs article").first
    expect(state_chip(again)).to_have_text("done", timeout=JOB_TIMEOUT_MILLIS)


def check_restart(session, samples):
    """The host is killed in the middle of a job and restarted: the web page reconnects, and every page is shown once."""
    page = session.page
    session.expected += ["ERR_", "Failed to load", "Failed to fetch"]
    card = session.upload_files(os.path.join(samples, "book.pdf"))
    expect(card.locator(".page-thumbnail[data-state=done]").first).to_be_visible(timeout=JOB_TIMEOUT_MILLIS)
    session.server.kill()
    expect(page.locator("article.reconnecting")).to_have_count(1)
    session.check_screen("host-gone")
    session.server.start()
    expect(page.locator("article.reconnecting")).to_have_count(0, timeout=JOB_TIMEOUT_MILLIS)
    expect(state_chip(card)).to_have_text("done", timeout=JOB_TIMEOUT_MILLIS)
    expect(card.locator(".page-thumbnail:not([data-state=done])")).to_have_count(0)
    assert page.get_by_text("Sign out").is_visible()


def check_api_documentation(session):
    page = session.page
    page.goto(session.server.base + "/docs")
    operations = page.locator(".operation")
    expect(operations.first).to_be_visible()
    paths = session.server.request_json("/openapi.json")["paths"]
    methods = sum(method in ("get", "post", "put", "patch", "delete") for item in paths.values() for method in item)
    expect(operations).to_have_count(methods)
    session.check_screen("docs")
    operations.nth(3).scroll_into_view_if_needed()
    session.check_screen("docs-operation")
    page.goto(session.server.base + "/problems")
    expect(page.get_by_role("link", name="not-found")).to_be_visible()
    session.check_screen("problems")


def write_samples(program, folder):
    """Writes the samples, two scans long enough to observe and to cancel, a book long enough to interrupt, and a broken file."""
    subprocess.run([program, folder], check=True)
    for kind, pages, name in (("scanned-book", 10, "live.pdf"), ("scanned-book", 24, "scan.pdf"), ("book", 300, "book.pdf")):
        subprocess.run([program, "--only", kind, "--pages", str(pages), os.path.join(folder, name)], check=True)
    with open(os.path.join(folder, "broken.pdf"), "w", encoding="utf-8") as broken:
        broken.write("This is not a PDF.\n")


def main(weir, program, screenshots):
    os.makedirs(screenshots, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        samples = os.path.join(folder, "samples")
        write_samples(program, samples)
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=os.environ["WEIR_CHROMIUM"], args=sandbox)
        failed, passed = 0, 0
        for name in DEVICES:
            server = Server(weir, os.path.join(folder, name))
            session = BrowserSession(browser, server, name, screenshots)
            steps = [
                ("signs in", lambda: session.sign_in()),
                ("shows live progress", lambda: check_live_progress(session, samples)),
                ("shows the summary", lambda: check_summary(session, samples)),
                ("opens the hit at its box", lambda: check_hit_opens_at_box(session)),
                ("hides weak hits", lambda: check_weak_hits(session)),
                ("shows partial success", lambda: check_partial_success(session, samples)),
                ("shows usage", lambda: check_usage(session)),
                ("shows nodes", lambda: check_nodes(session)),
                ("lists and deletes documents", lambda: check_documents(session)),
                ("cancels and retries", lambda: check_cancel_and_retry(session, samples)),
                ("reconnects after a restart", lambda: check_restart(session, samples)),
                ("shows the API documentation", lambda: check_api_documentation(session)),
                ("has no errors or violations", lambda: session.close_and_check()),
            ]
            for title, step in steps:
                try:
                    step()
                    passed += 1
                    print(f"ok      {name} {title}", flush=True)
                except Exception:
                    failed += 1
                    print(f"FAILED  {name} {title}\n{traceback.format_exc()}", flush=True)
                    if not session.page.is_closed():
                        session.page.screenshot(path=os.path.join(screenshots, f"{name}-failed.png"))
                    break
            server.stop()
        browser.close()
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "target/browser"))
