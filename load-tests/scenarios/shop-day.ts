// A day in a shop: every step of an order's life, at once. Buyers browse, order, revise and cancel;
// a clerk completes orders and lists them all; a seller adjusts the stock and edits products.

import { Counter } from "k6/metrics";
import { call, countOrder, header, json } from "../lib/api.ts";
import { commonOptions, count, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { thresholds } from "../lib/thresholds.ts";
import { ALL_SCOPES, token } from "../lib/tokens.ts";
import { browse, ownToken, randomElement } from "../lib/user_journeys.ts";
import { uuidv4 } from "../lib/uuid.ts";

const RATE = number("RATE", 20);
const LENGTH = duration("DURATION", "20s");

/** Revisions by `outcome`: revised, accepted (202), or the problem code. */
const revisions = new Counter("revisions");
/** Stock adjustments that were made. */
const adjustments = new Counter("adjustments");
/** Completed orders. */
const completed = new Counter("completed");
/** A revised order that does not have its new items, or a wrong total. Must stay 0. */
const wrongOrders = new Counter("wrong_orders");

const scenario = (exec: string, rate: number) => ({
    executor: "constant-arrival-rate",
    exec,
    rate,
    timeUnit: "1s",
    duration: LENGTH,
    preAllocatedVUs: number("VUS", 30),
    maxVUs: 4 * number("VUS", 30),
});

export const options = {
    scenarios: {
        buyers: scenario("buyer", RATE),
        clerk: scenario("clerk", Math.max(1, Math.floor(RATE / 5))),
        seller: scenario("seller", Math.max(1, Math.floor(RATE / 5))),
    },
    thresholds: {
        ...thresholds({
            iterations: number("MIN_ITERATIONS", 10 * RATE),
            p95: 3_000,
            p99: 8_000,
            rejected: 0.2,
            routes: ["POST /orders", "PUT /orders/{id}", "PUT /orders/{id}/status", "POST /products/{id}/stock-adjustments", "PATCH /products/{id}"],
        }),
        dropped_iterations: ["count>=0"],
        revisions: ["count>=1"],
        adjustments: ["count>=1"],
        completed: ["count>=1"],
        wrong_orders: ["count==0"],
    },
    ...commonOptions,
};

export const setup = (): Catalogue => createProducts(settings.products, 1_000_000);

const items = (catalogue: Catalogue) => {
    const lines = Array.from({ length: 1 + Math.floor(Math.random() * 3) }, () => randomElement(catalogue.products));
    return [...new Set(lines)].map((productId) => ({ productId, quantity: 1 + Math.floor(Math.random() * 4) }));
};

/** Browses, orders, and revises or cancels the order now and then. */
export function buyer(catalogue: Catalogue): void {
    const buyer = ownToken();
    browse({ catalogue, token: buyer, mayReject: true });
    const headers = { "idempotency-key": uuidv4() };
    const body = { items: items(catalogue) };
    const placed = call("POST", "/orders", { name: "POST /orders", token: buyer, body, headers, expected: [201, 202, 409], mayReject: true });
    countOrder(placed);
    const id = json(placed)?.id;
    if (placed.status !== 201) return;
    const draw = Math.random();
    if (draw < 0.5) revise(buyer, id, catalogue, header(placed, "Etag"));
    if (draw > 0.4 && draw < 0.6) {
        const body = { status: "CANCELLED" };
        call("PUT", `/orders/${id}/status`, { name: "PUT /orders/{id}/status", token: buyer, body, expected: [200, 409], mayReject: true });
    }
    call("GET", `/orders/${id}/history`, { name: "GET /orders/{id}/history", token: buyer, expected: [200], mayReject: true });
}

function revise(buyer: string, id: string, catalogue: Catalogue, tag?: string): void {
    const body = { items: items(catalogue) };
    const headers: Record<string, string> = tag ? { "if-match": tag } : {};
    // 409 and 412: the clerk completed the order meanwhile.
    const revised = call("PUT", `/orders/${id}`, { name: "PUT /orders/{id}", token: buyer, body, headers, expected: [200, 202, 409, 412], mayReject: true });
    const order = json(revised);
    revisions.add(1, { outcome: revised.status === 200 ? "revised" : revised.status === 202 ? "accepted" : (order?.code ?? "failed") });
    if (revised.status !== 200) return;
    // The same lines in another order change nothing.
    const quantities = (list: { productId: string; quantity: number }[]) => list.map((item) => `${item.productId}×${item.quantity}`).sort().join();
    const cents = (amount: number) => Math.round(amount * 100);
    const total = order.items.reduce((sum: number, item: { unitPrice: number; quantity: number }) => sum + cents(item.unitPrice) * item.quantity, 0);
    if (quantities(order.items) !== quantities(body.items) || cents(order.total) !== total) wrongOrders.add(1);
}

/** Lists the confirmed orders of all users, and completes the oldest of the page. */
export function clerk(): void {
    const clerk = token("clerk", ALL_SCOPES);
    const page = call("GET", "/orders?userId=*&status=CONFIRMED&limit=20", { name: "GET /orders?userId=*", token: clerk, expected: [200], mayReject: true });
    const id = json(page)?.items?.at(-1)?.id;
    if (!id) return;
    // 409: cancelled, or being revised.
    const body = { status: "COMPLETED" };
    const done = call("PUT", `/orders/${id}/status`, { name: "PUT /orders/{id}/status", token: clerk, body, expected: [200, 409], mayReject: true });
    if (done.status === 200) completed.add(1);
}

/** Adjusts the stock of a product, edits its description, and lists its history and its ledger. */
export function seller(catalogue: Catalogue): void {
    const seller = token("seller", ALL_SCOPES);
    const path = `/products/${randomElement(catalogue.products)}`;
    const headers = { "idempotency-key": uuidv4() };
    const body = { delta: Math.random() < 0.5 ? 5 : -3, reason: "counted" };
    const adjusted = call("POST", `${path}/stock-adjustments`, {
        name: "POST /products/{id}/stock-adjustments",
        token: seller,
        body,
        headers,
        expected: [201],
        mayReject: true,
    });
    if (adjusted.status === 201) adjustments.add(1);
    // Sales in between change the version, but not what is overwritten here.
    const current = call("GET", path, { name: "GET /products/{id}", token: seller, expected: [200], mayReject: true });
    const tag = header(current, "Etag");
    if (current.status === 200 && tag) {
        const patch = { description: `Seen ${Date.now()}` };
        // 412: another edit of the description.
        const options = { name: "PATCH /products/{id}", token: seller, body: patch, headers: { "if-match": tag }, expected: [200, 412], mayReject: true };
        call("PATCH", path, options);
    }
    call("GET", `${path}/history`, { name: "GET /products/{id}/history", token: seller, expected: [200], mayReject: true });
    call("GET", `${path}/stock-adjustments?limit=10`, { name: "GET /products/{id}/stock-adjustments", token: seller, expected: [200], mayReject: true });
}

export const teardown = audit;

export const handleSummary = report("shop-day", (data) => [
    `${count(data, "revisions")} revisions, ${count(data, "completed")} orders completed, ${count(data, "adjustments")} stock adjustments.`,
    "",
]);
