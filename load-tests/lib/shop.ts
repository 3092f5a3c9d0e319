// Setup and teardown: creates products, and checks the invariants after the run.

import { sleep } from "k6";
import http from "k6/http";
import { Counter } from "k6/metrics";
import { call, json } from "./api.ts";
import { settings } from "./settings.ts";
import { ALL_SCOPES, token } from "./tokens.ts";

/** Invariant violations found by products and orders. Must stay 0. */
const violations = new Counter("invariant_violations");
/** Completed invariant checks. */
const checks = new Counter("invariant_checks");

export interface Catalogue {
    products: string[];
    category: string;
}

/** Creates products with `quantity` units each. Failures show in the iterations. */
export function createProducts(products: number, quantity: number): Catalogue {
    const seller = token("seller", ALL_SCOPES);
    const category = `load-${Date.now()}`;
    const ids: string[] = [];
    for (let n = 0; n < products; n++) {
        const body = { name: `Lamp ${n}`, description: "For load tests.", price: 19.99, quantity, category };
        const response = call("POST", "/products", { name: "POST /products", token: seller, body, expected: [201] });
        const id = json(response)?.id;
        if (id) ids.push(id);
    }
    // A nonexistent product keeps the iterations running without stock. They fail individually and
    // are counted.
    return { products: ids.length > 0 ? ids : ["00000000-0000-4000-8000-000000000000"], category };
}

/** Waits for pending orders, then runs both invariant checks. A violation fails the run. */
export function audit(): void {
    waitForOrders();
    for (const [service, admin] of [["products", settings.productsAdmin], ["orders", settings.ordersAdmin]]) {
        const response = http.get(`${admin}/invariants`, { tags: { name: "invariants" }, timeout: "60s" });
        const report = response.status === 200 ? JSON.parse(String(response.body)) : { violations: [`${service} returned ${response.status}`] };
        checks.add(response.status === 200 ? 1 : 0);
        violations.add(report.violations.length, { service });
        for (const violation of report.violations) console.error(`${service}: ${violation}`);
    }
}

/** Waits until no order is in progress. */
function waitForOrders(): void {
    for (let second = 0; second < settings.settleSeconds; second++) {
        const response = http.get(`${settings.ordersAdmin}/metrics`, { tags: { name: "metrics" } });
        // The gauges are read from the store every few seconds, so wait for two readings after the
        // last order.
        if (response.status === 200 && ordersInProgress(String(response.body)) === 0 && second >= 6) return;
        sleep(1);
    }
    violations.add(1, { service: "orders" });
    console.error(`orders still in progress ${settings.settleSeconds} s after the load`);
}

function ordersInProgress(metrics: string): number {
    const lines = metrics.split("\n").filter((line) => line.startsWith("palisade_saga_in_flight{"));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
