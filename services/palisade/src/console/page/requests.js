// The last requests, and the trace of one of them as a waterfall with its log lines.

import { byId, element, keepRows, milliseconds, setNumber, setText, timeOfDay } from "./dom.js";

let traces = [];
let shown = null;

export function setTraces(list) {
  traces = list;
  if (!byId("pause").checked) showRequests();
}

function showRequests() {
  const selected = byId("only-notable").checked ? traces.filter((trace) => trace.notable) : traces;
  keepRows(byId("request-rows"), selected, (trace) => trace.traceId, createRequest, (row, trace) => {
    const [, , status, duration, retries, spans, records] = row.children;
    setText(status, trace.status || "–");
    // A failed hop may be hidden from the caller, as a pending order hides it.
    const isHidden = /^[1-4]\d\d$/.test(trace.status);
    status.className = trace.failed ? `state ${isHidden ? "warn" : "bad"}` : "";
    setNumber(duration, milliseconds(trace.durationMs), false, trace.notable && !trace.failed ? "warn" : "");
    setNumber(retries, `${trace.retries}`, !trace.retries, "warn");
    setNumber(spans, `${trace.spans}`, false);
    setNumber(records, `${trace.records}`, !trace.records);
    row.classList.toggle("selected", trace.traceId === shown);
  });
}

function createRequest(trace) {
  const open = element("button", { type: "button", className: "link" }, trace.name);
  open.addEventListener("click", () => openTrace(trace.traceId));
  const row = element("tr", {}, element("td", {}, timeOfDay(trace.startedMs)), element("td", {}, open), element("td"));
  for (let cell = 0; cell < 4; cell += 1) row.append(element("td", { className: "number" }));
  return row;
}

async function openTrace(id) {
  shown = id;
  const response = await fetch(`/console/traces/${id}`);
  const trace = response.ok ? await response.json() : null;
  // Another one was opened meanwhile.
  if (shown !== id) return;
  byId("trace").hidden = false;
  const title = byId("trace-title");
  setText(title, `Trace ${id}`);
  byId("spans").replaceChildren();
  byId("records").replaceChildren();
  if (trace) showTrace(trace);
  else byId("records").append(element("li", {}, "The trace is no longer in memory."));
  title.focus();
  title.scrollIntoView({ block: "nearest" });
  showRequests();
}

function showTrace({ spans, records, startedMs }) {
  const total = Math.max(0.001, ...spans.map((span) => span.offsetMs + span.durationMs));
  byId("spans").append(...inTreeOrder(spans).flatMap(([span, depth]) => createSpan(span, depth, total)));
  const lines = records.map((record) => element("li", { className: record.level === "ERROR" ? "bad" : record.level === "WARN" ? "warn" : "" },
    `+${(record.atMs - startedMs).toFixed(1)} ms ${record.level} ${record.service ?? ""} ${record.message} ${record.fields}`));
  byId("records").append(...(lines.length > 0 ? lines : [element("li", { className: "quiet" }, "No log lines.")]));
}

/** Spans with their depth, each after its parent. */
function inTreeOrder(spans) {
  const ids = new Set(spans.map((span) => span.spanId));
  const children = new Map();
  for (const span of spans) {
    const parent = ids.has(span.parentId) ? span.parentId : null;
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const visit = (parent, depth) => (children.get(parent) ?? []).flatMap((span) => [[span, depth], ...visit(span.spanId, depth + 1)]);
  return visit(null, 0);
}

function createSpan(span, depth, total) {
  const position = (ms) => `${(Math.min(ms / total, 1) * 100).toFixed(2)}%`;
  const bar = element("span", { className: `bar ${span.service ?? ""} ${span.error ? "failed" : ""}` });
  bar.style.left = position(span.offsetMs);
  bar.style.width = position(span.durationMs);
  const track = element("span", { className: "track" }, bar);
  for (const event of span.events) {
    const mark = element("span", { className: "event", title: event.name });
    mark.style.left = position(event.offsetMs);
    track.append(mark);
  }
  const toggle = element("button", { type: "button", className: "link", "aria-expanded": "false" }, span.name);
  const heading = element("th", { scope: "row" }, toggle);
  heading.style.paddingLeft = `${depth * 1.1}rem`;
  const duration = element("td", { className: `number ${span.error ? "bad" : ""}` }, `${milliseconds(span.durationMs)}${span.error ? " error" : ""}`);
  const row = element("tr", {}, heading, element("td", {}, `${span.service ?? ""} ${span.kind}`), duration, element("td", {}, track));
  const details = element("tr", { hidden: true }, element("td", { colSpan: 4, className: "details" }, createDetails(span)));
  toggle.addEventListener("click", () => {
    details.hidden = !details.hidden;
    toggle.setAttribute("aria-expanded", `${!details.hidden}`);
  });
  return [row, details];
}

function createDetails(span) {
  const event = ({ name, offsetMs, attributes }) =>
    [name, `+${offsetMs.toFixed(1)} ms ${Object.entries(attributes).map(([key, value]) => `${key}=${value}`).join(" ")}`];
  const facts = [
    ["offset", milliseconds(span.offsetMs)],
    ...Object.entries(span.attributes),
    ...span.events.map(event),
    ...span.links.map((link) => ["linked trace", createLink(link)]),
  ];
  const text = (value) => (value instanceof Node ? value : `${value}`);
  return element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, text(value))]));
}

function createLink(traceId) {
  const link = element("button", { type: "button", className: "link" }, traceId);
  link.addEventListener("click", () => openTrace(traceId));
  return link;
}

export function installRequests() {
  for (const id of ["only-notable", "pause"]) byId(id).addEventListener("change", showRequests);
  byId("trace-close").addEventListener("click", () => {
    byId("trace").hidden = true;
    const row = byId("request-rows").querySelector(`[data-key="${shown}"] button`);
    shown = null;
    (row ?? byId("requests")).focus();
    showRequests();
  });
}
