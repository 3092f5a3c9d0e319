// Hops, limits and shop: differences between snapshots of counters.

import { createChart, drawChart } from "./charts.js";
import { byId, element, keepRows, milliseconds, numberRow, percent, rate, setNumber, setText } from "./dom.js";

/** Snapshots kept: two minutes of chart, and one before. */
const KEPT = 121;
/** Interval of rates and quantiles, snapshots. */
const RECENT = 10;

const snapshots = [];

export function addSnapshot(snapshot) {
  const last = snapshots.at(-1);
  // A restart or a gap begins anew.
  if (last && (snapshot.atMs - last.atMs > 5000 || snapshot.atMs <= last.atMs)) snapshots.length = 0;
  snapshots.push(snapshot);
  if (snapshots.length > KEPT) snapshots.shift();
  showHops();
  showLimits();
  showShop();
}

const serviceOf = (snapshot, name) => snapshot.services.find((service) => service.service === name);

/** Sum of a metric of a service over the series with these labels. `null` without any, or if one is not known. */
export function sum(snapshot, service, name, labels = {}) {
  const matches = (series) => series.name === name && Object.entries(labels).every(([label, value]) => series.labels[label] === value);
  const found = (serviceOf(snapshot, service)?.series ?? []).filter(matches);
  const isKnown = found.length > 0 && found.every((series) => series.value !== null);
  return isKnown ? found.reduce((total, series) => total + series.value, 0) : null;
}

/** Increase per second of `read` over the last `RECENT` snapshots. */
export function perSecond(read) {
  const [older, newer] = [snapshots.at(-1 - RECENT) ?? snapshots[0], snapshots.at(-1)];
  if (newer === older) return null;
  return Math.max(0, (read(newer) - read(older)) / ((newer.atMs - older.atMs) / 1000));
}

const hopsOf = (snapshot) => snapshot.services.flatMap((service) => service.hops);
const hopKey = (hop) => `${hop.from} → ${hop.to}`;
const EMPTY = { requests: 0, errors: 0, retries: 0, buckets: [] };
const hopIn = (snapshot, key) => hopsOf(snapshot).find((hop) => hopKey(hop) === key) ?? EMPTY;

function showHops() {
  const order = (hop) => (hop.from === "clients" ? 0 : ["gateway", "orders", "products"].includes(hop.to) ? 1 : 2);
  const hops = hopsOf(snapshots.at(-1)).filter((hop) => hop.to !== "").sort((a, b) => order(a) - order(b));
  const create = (hop) => {
    const row = numberRow(hopKey(hop), 5);
    row.append(element("td", {}, createChart()));
    return row;
  };
  keepRows(byId("hops"), hops, hopKey, create, (row, hop) => {
    const key = hopKey(hop);
    const [, requests, errors, p50, p95, retries, chart] = row.children;
    const read = (field) => perSecond((snapshot) => hopIn(snapshot, key)[field]);
    const [requestRate, errorRate, retryRate] = [read("requests"), read("errors"), read("retries")];
    const isIdle = !requestRate;
    const share = requestRate ? Math.min(1, errorRate / requestRate) : null;
    setNumber(requests, rate(requestRate), isIdle);
    setNumber(errors, percent(share), !share, "bad");
    for (const [cell, quantile] of [[p50, 0.5], [p95, 0.95]]) setNumber(cell, milliseconds(quantileOf(key, quantile)), isIdle);
    setNumber(retries, rate(retryRate), !retryRate, "warn");
    drawChart(chart.firstElementChild, differences(key, "requests"), differences(key, "errors"));
  });
}

/** Increase of a field between neighbouring snapshots. */
function differences(key, field) {
  const values = snapshots.map((snapshot) => hopIn(snapshot, key)[field]);
  return values.slice(1).map((value, index) => Math.max(0, value - values[index]));
}

/** Quantile of the recent durations in milliseconds, interpolated as by `histogram_quantile`. */
function quantileOf(key, quantile) {
  const [older, newer] = [hopIn(snapshots.at(-1 - RECENT) ?? snapshots[0], key), hopIn(snapshots.at(-1), key)];
  const total = newer.requests - older.requests;
  if (total <= 0) return null;
  const before = new Map(older.buckets);
  let [bound, below] = [0, 0];
  for (const [nextBound, count] of newer.buckets) {
    const nextBelow = count - (before.get(nextBound) ?? 0);
    if (nextBelow >= total * quantile) {
      const share = (total * quantile - below) / Math.max(1, nextBelow - below);
      return (bound + (nextBound - bound) * share) * 1000;
    }
    [bound, below] = [nextBound, nextBelow];
  }
  return bound * 1000;
}

function showLimits() {
  const newest = snapshots.at(-1);
  keepRows(byId("limits"), newest.services, (service) => service.service, (service) => numberRow(service.service, 5), (row, { service }) => {
    const [, used, limit, queued, shed, limited] = row.children;
    const of = (name) => sum(newest, service, name, { limiter: "adaptive" });
    const [inUse, depth] = [of("palisade_concurrency_in_use"), of("palisade_queue_depth")];
    const increase = (reasons) => perSecond((snapshot) =>
      reasons.reduce((total, reason) => total + (sum(snapshot, service, "palisade_requests_shed_total", { reason }) ?? 0), 0));
    const sheds = increase(["concurrency", "caller_share", "queue_full", "queue_timeout", "streams", "streams_of_caller"]);
    const limits = increase(["rate_limit", "address_limit"]);
    setNumber(used, `${inUse ?? 0}`, !inUse);
    setNumber(limit, `${Math.floor(of("palisade_concurrency_limit") ?? 0)}`, false);
    setNumber(queued, `${depth ?? 0}`, !depth, "warn");
    setNumber(shed, rate(sheds), !sheds, "bad");
    setNumber(limited, rate(limits), !limits, "warn");
  });
}

function showShop() {
  const newest = snapshots.at(-1);
  // The gauges of a store are unknown before its first read and while it cannot be read.
  const gauge = (service, name, labels, show = String) => {
    const value = sum(newest, service, name, labels);
    return value === null ? "–" : show(value);
  };
  const stock = (state) => gauge("products", "palisade_stock_units", { state });
  const orders = (outcome) => gauge("orders", "palisade_orders_total", { outcome });
  const sagas = (state) => gauge("orders", "palisade_saga_in_flight", { state });
  const seconds = (value) => `${value.toFixed(0)} s`;
  const outbox = (service) => gauge(service, "palisade_outbox_pending", {}, (pending) =>
    pending > 0 ? `${pending}, oldest ${gauge(service, "palisade_outbox_oldest_seconds", {}, seconds)}` : "0");
  const facts = [
    ["Units available", stock("available")],
    ["Units reserved", stock("reserved")],
    ["Units sold", stock("sold")],
    ["Products sold out", gauge("products", "palisade_stock_out_products")],
    ["Orders confirmed", orders("confirmed")],
    ["Orders failed", orders("failed")],
    ["Sagas pending", sagas("PENDING")],
    ["Sagas reserved", sagas("PRODUCT_RESERVED")],
    ["Oldest saga", gauge("orders", "palisade_saga_oldest_in_flight_seconds", {}, seconds)],
    ["Outbox of products", outbox("products")],
    ["Outbox of orders", outbox("orders")],
    ["Dead letters", gauge("orders", "palisade_outbox_dead_lettered")],
  ];
  const create = ([name]) => element("div", {}, element("dt", {}, name), element("dd"));
  keepRows(byId("shop"), facts, ([name]) => name, create, (pair, [, value]) => setText(pair.lastElementChild, value));
}
