"use strict";
// Shows what /status says, each second. All that comes from there becomes text, and never markup.
const LETTERS = { F: "starting", f: "starting", ".": "starting", w: "idle", r: "busy", l: "long", k: "keep", e: "exiting" };
const NAMES = ["starting", "idle", "busy", "long", "keep", "exiting", "torn"];
const get = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function rect(x, y, width, height, className) {
  const element = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ x, y, width, height })) element.setAttribute(name, value);
  if (className) element.setAttribute("class", className);
  return element;
}

function short(number) {
  return number < 9.995 ? number.toFixed(2) : number < 99.95 ? number.toFixed(1) : number.toFixed(0);
}

function span(seconds) {
  if (seconds < 0.0005) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${short(seconds * 1e3)} ms`;
  if (seconds < 59.95) return `${short(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

// Control characters, what shows text in another order than it has, and what is not to be seen.
function harmless(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u{e0000}-\u{e007f}\\]/gu,
    (char) => char === "\\" ? "\\\\" : `\\u{${char.codePointAt(0).toString(16)}}`);
}

const stateOf = (letter) => LETTERS[letter] || "torn";
const isBusy = (child) => child.state === "r" || child.state === "l";

function upperBound(bucket) {
  return 64e-6 * 2 ** (bucket / 3);
}

function quantile(histogram, share) {
  const count = histogram.buckets.reduce((sum, number) => sum + number, 0);
  const rank = Math.max(1, Math.ceil(count * share));
  let seen = 0;
  const bucket = histogram.buckets.findIndex((number) => (seen += number) >= rank);
  if (bucket === 0) return 32e-6;
  return bucket + 1 === histogram.buckets.length ? upperBound(bucket - 1) : upperBound(bucket) / 2 ** (1 / 6);
}

function showHistogram(id, histogram) {
  const bars = new Array(22).fill(0);
  histogram.buckets.forEach((number, bucket) => { bars[Math.min(21, Math.ceil(bucket / 3))] += number; });
  const most = Math.max(1, ...bars);
  get(id).replaceChildren(...bars.map((number, bar) =>
    rect(bar + 0.08, 100 - height(number, most), 0.84, height(number, most))));
  const count = bars.reduce((sum, number) => sum + number, 0);
  const share = (share) => span(quantile(histogram, share));
  get(`${id}-text`).textContent = count === 0 ? "nothing yet"
    : `${count} · half within ${share(0.5)} · 90 % within ${share(0.9)} · 99 % within ${share(0.99)}`;
}

// What is there is seen.
function height(number, most) {
  return number === 0 ? 0 : Math.max(2, 96 * number / most);
}

function row(cells) {
  const row = make("tr");
  row.append(...cells.map(([text, className]) => make("td", text, className)));
  return row;
}

function nothing(text, columns) {
  const row = make("tr");
  const cell = make("td", text, "dim");
  cell.colSpan = columns;
  row.append(cell);
  return row;
}

function showList(id, pairs) {
  get(id).replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function show(status) {
  const { service, pool, counters } = status;
  document.title = `${service.phase} · ${service.name}`;
  get("name").textContent = harmless(service.name);
  get("phase").textContent = service.phase;
  get("phase").className = `pill ${service.phase}`;
  get("about").textContent = about(service);
  const total = make("small", ` / ${pool.limit}`);
  get("total").replaceChildren(String(pool.total), total);
  let at = 0;
  get("states").replaceChildren(...NAMES.map((name) => {
    const width = 100 * pool.states[name] / Math.max(1, pool.limit, pool.total);
    at += width;
    return rect(at - width, 0, width, 1, name);
  }));
  get("spares").textContent = spares(service, pool);
  get("requests").textContent = requests(counters);
  const known = status.listeners.filter((listener) => listener.queue);
  const sum = (what) => known.reduce((sum, listener) => sum + listener.queue[what], 0);
  if (known.length) get("waiting").replaceChildren(String(sum("waiting")), make("small", ` / ${sum("limit")}`));
  else get("waiting").textContent = "unknown";
  get("queue").replaceChildren(rect(0, 0, 100 * Math.min(1, sum("waiting") / Math.max(1, sum("limit"))), 1, "fill"));
  get("saturated").textContent = saturated(pool, counters);
  get("saturated").className = pool.saturated ? "bad" : "";
  get("oldest").textContent = status.oldest_request === null ? "none" : span(status.oldest_request);
  const ends = Object.values(counters.exits).reduce((sum, number) => sum + number, 0);
  get("ended").textContent = `${counters.forks} children forked, ${ends} ended`;
  get("backoff").textContent = pool.backoff ? "forks wait after failures" : "";
  showBoard(status.board);
  for (const name of NAMES) {
    const number = document.querySelector(`#legend [data-state="${name}"]`);
    if (number) number.textContent = pool.states[name];
  }
  showHistogram("took", status.durations.request);
  showHistogram("waited", status.durations.accept_wait);
  showChildren(status.children);
  const deaths = status.deaths.map((death) => row([[`${death.slot}:${death.generation}`],
    [harmless(death.cause), death.in_order ? "" : "bad"], [span(death.reaped.seconds_ago), "n"], [span(death.age), "n wide"],
    [death.requests, "n"], [death.pid, "n wide"]]));
  get("deaths").tBodies[0].replaceChildren(...(deaths.length ? deaths : [nothing("no child has ended", 6)]));
  const listeners = status.listeners.map(({ name, queue, unknown }) => queue
    ? row([[harmless(name), "peer"], [queue.waiting, "n"], [queue.limit, "n"]])
    : row([[harmless(name), "peer"], [harmless(unknown || "unknown"), "dim"], [""]]));
  get("listeners").tBodies[0].replaceChildren(...(listeners.length ? listeners : [nothing("none", 3)]));
  showList("counters", counted(counters));
  showList("settings", Object.entries(status.settings));
}

function about(service) {
  const kind = { "pre-forking": "pre-forking", "post-forking": "a child for each request", "non-forking": "one process" }[service.kind];
  const supervisor = service.supervisor ? ` · ${harmless(service.supervisor)}` : "";
  return `process ${service.pid} · ${kind} · up ${span(service.started.seconds_ago)} · generation ${service.generation} · lenore ${service.version}${supervisor}`;
}

function spares(service, pool) {
  const flying = pool.forks_in_flight ? `, ${pool.forks_in_flight} being forked` : "";
  if (service.kind !== "pre-forking") return `${pool.queued} requests wait for a child${flying}`;
  return `${pool.states.idle} idle, ${pool.min_spare} to ${pool.max_spare} wanted${flying}`;
}

function requests(counters) {
  const failed = counters.requests_failed;
  return `${counters.requests} begun` + (failed === null ? "" : `, ${failed} failed`);
}

function saturated(pool, counters) {
  if (pool.saturated) return `all children busy for ${span(pool.saturated.seconds_ago)}`;
  if (counters.saturated_seconds === 0) return "never saturated";
  return `saturated for ${span(counters.saturated_seconds)} in all`;
}

function counted(counters) {
  const some = (numbers) => Object.entries(numbers).filter(([, number]) => number > 0)
    .map(([name, number]) => `${number} ${name}`).join(", ") || "none";
  return [["children ended", some(counters.exits)], ["failed forks", some(counters.fork_failures)],
    ["time busy", span(counters.busy_seconds)],
    ["turned away", counters.listen_overflows === null ? "unknown" : `${counters.listen_overflows} in this network namespace`],
    ["torn reads", String(counters.torn_reads)]];
}

function showBoard(letters) {
  get("board").replaceChildren(...[...letters].map((letter, slot) => {
    const cell = letter === " " ? make("b", "", "none") : make("b", LETTERS[letter] ? letter : "?", stateOf(letter));
    cell.title = `slot ${slot}`;
    return cell;
  }));
}

// The oldest requests first, and then by slot.
function showChildren(children) {
  const sorted = children.slice().sort((a, b) =>
    isBusy(b) - isBusy(a) || (isBusy(a) ? b.since.seconds_ago - a.since.seconds_ago : a.slot - b.slot));
  const rows = sorted.map((child) => {
    const line = row([[`${child.slot}:${child.generation}`], [""], [span(child.since.seconds_ago), "n"],
      [harmless(child.peer), "peer"], [child.requests, "n"], [span(child.started.seconds_ago), "n wide"],
      [child.pid === null ? "" : child.pid, "n wide"], [child.told === "stay" ? "" : child.told || "", "wide dim"]]);
    const state = child.state === " " ? "starting" : stateOf(child.state);
    line.cells[1].append(make("span", state, `s ${state}`));
    return line;
  });
  get("children").tBodies[0].replaceChildren(...(rows.length ? rows : [nothing("no children", 8)]));
}

// Rates are over the last ten seconds; the line shows a minute.
const seen = [];
const rates = [];

function note(status) {
  const now = performance.now() / 1000;
  const last = seen[seen.length - 1];
  if (last && last.pid !== status.service.pid) seen.length = rates.length = 0;
  seen.push({ now, pid: status.service.pid, requests: status.counters.requests });
  while (seen.length > 11) seen.shift();
  const first = seen[0];
  if (seen.length < 2) return;
  const before = seen[seen.length - 2];
  rates.push(Math.max(0, status.counters.requests - before.requests) / Math.max(0.001, now - before.now));
  while (rates.length > 60) rates.shift();
  const rate = Math.max(0, status.counters.requests - first.requests) / Math.max(0.001, now - first.now);
  get("rate").replaceChildren(short(rate), make("small", " / s"));
  const most = Math.max(1, ...rates);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", rates.map((rate, index) => `${60 - rates.length + index + 0.5},${9.5 - 9 * rate / most}`).join(" "));
  get("spark").replaceChildren(line);
}

let answered = Date.now();

async function look() {
  if (document.visibilityState === "visible") {
    try {
      const response = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(3000) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const status = await response.json();
      show(status);
      note(status);
      answered = Date.now();
      get("gone").hidden = true;
      document.body.classList.remove("stale");
      get("live").className = "on";
      get("live").textContent = "live";
    } catch {
      const time = new Date(answered).toLocaleTimeString();
      get("gone").textContent = `The parent process does not answer. This is how it was at ${time}.`;
      get("gone").hidden = false;
      document.body.classList.add("stale");
      get("live").className = "";
      get("live").textContent = `seen ${span((Date.now() - answered) / 1000)} ago`;
    }
  }
  setTimeout(look, 1000);
}
look();
