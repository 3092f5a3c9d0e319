// Faults and circuit breakers: their state, and the switches of an operator.

import { announce, byId, element, keepRows, percent, rate, setNumber, setText } from "./dom.js";
import { perSecond, sum } from "./metrics.js";

/** Name of the fault that this page sets. */
const FAULT = "console";
const STATE_CLASS = { closed: "good", open: "bad", half_open: "warn", forced_open: "bad", disabled: "warn", metrics_only: "warn" };
const known = new Map();

async function send(path, method, body) {
  const response = await fetch(`/console/services/${path}`, { method, body: body && JSON.stringify(body) });
  if (response.ok) return true;
  const problem = await response.json().catch(() => ({}));
  announce(`Refused: ${problem.errors?.map((error) => error.message).join(", ") || problem.detail || response.status}`);
  return false;
}

export function showSwitches(snapshot) {
  showBreakers(snapshot);
  showFaults(snapshot);
}

function showBreakers(snapshot) {
  const breakers = snapshot.services.flatMap(({ service, breakers }) => (breakers ?? []).map((breaker) => ({ ...breaker, service })));
  const key = (breaker) => `${breaker.service} → ${breaker.target}`;
  keepRows(byId("breakers"), breakers, key, (breaker) => createBreaker(breaker, key(breaker)), (row, breaker) => {
    const [, state, failures, rejected, tokens, denied] = row.children;
    const { service, target } = breaker;
    const left = breaker.openForMs === null ? "" : `, ${Math.ceil(breaker.openForMs / 1000)} s left`;
    const name = breaker.state.replace("_", " ");
    setText(state, `${name}${left}`);
    state.className = `state ${STATE_CLASS[breaker.state] ?? ""}`;
    const share = breaker.calls > 0 ? breaker.failed / breaker.calls : null;
    setNumber(failures, percent(share), !share, "bad");
    const increase = (metric, labels) => perSecond((at) => sum(at, service, metric, labels) ?? 0);
    const rejects = increase("palisade_breaker_rejected_total", { target, scope: "target" });
    setNumber(rejected, rate(rejects), !rejects, "bad");
    setNumber(tokens, (sum(snapshot, service, "palisade_retry_budget_tokens", { target }) ?? 0).toFixed(0), false);
    const denials = increase("palisade_retries_denied_total", { target });
    setNumber(denied, rate(denials), !denials, "warn");
    if (known.has(key(breaker)) && known.get(key(breaker)) !== name) announce(`Breaker ${key(breaker)} is ${name}`);
    known.set(key(breaker), name);
  });
}

function createBreaker({ service, target }, name) {
  const set = (label, body) => {
    const button = element("button", { type: "button", "aria-label": `${label}: ${name}` }, label);
    button.addEventListener("click", () => send(`${service}/breakers/${target}`, "PUT", body));
    return button;
  };
  const row = element("tr", {}, element("th", { scope: "row" }, name), element("td", { className: "state" }));
  for (let cell = 0; cell < 4; cell += 1) row.append(element("td", { className: "number" }));
  row.append(element("td", { className: "actions" },
    set("Open 10 s", { openForMs: 10000 }), set("Hold open", { mode: "forced_open" }), set("Automatic", { mode: "active" })));
  return row;
}

function showFaults(snapshot) {
  const services = snapshot.services.filter((service) => service.faults !== null);
  const select = byId("fault-service");
  if (select.options.length === 0) {
    const names = services.map(({ service }) => service).sort((a, b) => (b === "products") - (a === "products"));
    select.append(...names.map((name) => element("option", { value: name }, name)));
    byId("fault-form").querySelectorAll("button, select").forEach((control) => { control.disabled = names.length === 0; });
  }
  const faults = services.flatMap(({ service, faults }) => faults.map((fault) => ({ ...fault, service })));
  const empty = services.length === 0 ? "Fault injection is disabled." : "No active faults.";
  const items = faults.length === 0 ? [{ text: empty }] : faults.map((fault) => ({ text: describe(fault), isActive: true }));
  keepRows(byId("faults"), items, (item) => item.text, () => element("li"), (row, { text, isActive }) => {
    setText(row, text);
    row.className = isActive ? "bad" : "quiet";
  });
}

function describe({ service, method, rate: share, kind }) {
  const effect = kind.latency ? `${kind.latency.ms} ms slower` : kind.error ? `error ${kind.error}` : kind;
  return `${service}: ${effect}, ${percent(share)} of ${method === "*" ? "all requests" : method}`;
}

export function installSwitches() {
  const [form, kind, delay] = ["fault-form", "fault-kind", "fault-delay"].map(byId);
  kind.addEventListener("change", () => { delay.disabled = kind.value !== "latency"; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const effects = { latency: { latency: { ms: Number(delay.value) } }, hang: "hang", abort: "abort" };
    const effect = effects[kind.value] ?? { error: kind.value };
    const rule = { name: FAULT, method: "*", rate: Number(byId("fault-share").value) / 100, kind: effect };
    const service = byId("fault-service").value;
    if (await send(`${service}/faults`, "PUT", { rules: [rule] })) announce(`Fault set: ${describe({ ...rule, service })}`);
  });
  byId("fault-clear").addEventListener("click", async () => {
    const services = [...byId("fault-service").options].map((option) => option.value);
    const removed = await Promise.all(services.map((service) => send(`${service}/faults`, "DELETE")));
    if (removed.every(Boolean)) announce("All faults removed");
  });
}
