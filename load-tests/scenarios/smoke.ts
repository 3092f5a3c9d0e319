// Smoke: every route once, in the order of a typical session.

import { call, countOrder, header, json } from "../lib/api.ts";
import { commonOptions, report } from "../lib/report.ts";
import { number } from "../lib/settings.ts";
import { audit } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { ALL_SCOPES, token } from "../lib/tokens.ts";
import { uuidv4 } from "../lib/uuid.ts";

const ITERATIONS = number("ITERATIONS", 5);

export const options = {
    scenarios: { smoke: { executor: "shared-iterations", vus: number("VUS", 1), iterations: ITERATIONS } },
    thresholds: { ...thresholds({ iterations: ITERATIONS, p95: 2_000, p99: 4_000, routes: ROUTES }), orders: [`count>=${ITERATIONS}`] },
    ...commonOptions,
};

export default function smoke(): void {
    const admin = token("load-admin", ALL_SCOPES);
    const as = { token: admin };
    for (const path of ["/livez", "/readyz"]) call("GET", path, { name: `GET ${path}`, expected: [200] });
    call("GET", "/openapi.json", { name: "GET /openapi.json", expected: [200] });
    call("GET", "/docs", { name: "GET /docs", expected: [200] });

    const goods = { name: "Desk lamp", description: "Smokes not.", price: 24.5, quantity: 10, category: "lighting" };
    const made = call("POST", "/products", { ...as, name: "POST /products", body: goods, expected: [201] });
    const product = `/products/${json(made)?.id}`;
    call("GET", "/products?limit=1", { ...as, name: "GET /products", expected: [200] });
    const found = call("GET", product, { ...as, name: "GET /products/{id}", expected: [200] });
    const ifMatch = { "if-match": header(found, "Etag") ?? '"none"' };
    call("PUT", product, { ...as, name: "PUT /products/{id}", body: { ...goods, price: 19.99 }, headers: ifMatch, expected: [200] });
    call("PUT", product, { ...as, name: "PUT /products/{id}", body: goods, headers: ifMatch, expected: [412] });

    const patch = { ...as, name: "PATCH /products/{id}", body: { description: "Still smokes not." } };
    call("PATCH", product, { ...patch, expected: [200] });
    call("GET", `${product}/history`, { ...as, name: "GET /products/{id}/history", expected: [200] });
    const adjustments = `${product}/stock-adjustments`;
    const damaged = { delta: -1, reason: "damaged" };
    const adjusting = { ...as, name: "POST /products/{id}/stock-adjustments", body: damaged };
    call("POST", adjustments, { ...adjusting, headers: { "idempotency-key": uuidv4() }, expected: [201] });
    call("POST", adjustments, { ...adjusting, body: { ...damaged, delta: -100 }, expected: [409] });
    call("GET", adjustments, { ...as, name: "GET /products/{id}/stock-adjustments", expected: [200] });

    const body = { items: [{ productId: json(made)?.id, quantity: 3 }] };
    const headers = { "idempotency-key": uuidv4() };
    const ordered = call("POST", "/orders", { ...as, name: "POST /orders", body, headers, expected: [201, 202] });
    countOrder(ordered);
    call("POST", "/orders", { ...as, name: "POST /orders", body, headers, expected: [201, 202, 409] });
    call("POST", "/orders", { ...as, name: "POST /orders", body: { items: [] }, expected: [400] });
    const order = `/orders/${json(ordered)?.id}`;
    call("GET", order, { ...as, name: "GET /orders/{id}", expected: [200] });
    call("GET", `${order}/history`, { ...as, name: "GET /orders/{id}/history", expected: [200] });
    call("GET", "/orders?limit=1", { ...as, name: "GET /orders", expected: [200] });
    call("DELETE", product, { ...as, name: "DELETE /products/{id}", expected: [409] });
    const cancelled = { status: "CANCELLED" };
    call("PUT", `${order}/status`, { ...as, name: "PUT /orders/{id}/status", body: cancelled, expected: [200] });
    call("DELETE", order, { ...as, name: "DELETE /orders/{id}", expected: [204] });
    // Hidden from its owner only: this user is an administrator.
    call("GET", order, { ...as, name: "GET /orders/{id}", expected: [200] });
    call("GET", "/products", { name: "GET /products", expected: [401] });
}

export const teardown = audit;
export const handleSummary = report("smoke");
