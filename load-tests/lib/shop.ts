// Setup and teardown: creates products, and checks the invariants after the run.

import { sleep } from "k6";
import http from "k6/http";
import { Counter } from "k6/metrics";
import { call, json } from "./api.ts";
import { settings } from "./settings.ts";
import { ALL_SCOPES, token } from "./tokens.ts";

/** Invariant violations found by products and orders. Must stay 0. */
export const broken = new Counter("invariants_broken");
/** Completed invariant checks. */
export const checked = new Counter("invariants_checked");

export interface Shelf {
    products: string[];
    category: string;
}

/** Creates products with `quantity` units each. Failures show in the iterations. */
export function stock(products: number, quantity: number): Shelf {
    const seller = token("seller", ALL_SCOPES);
    const category = `load-${Date.now()}`;
    const ids: string[] = [];
    for (let n = 0; n < products; n++) {
        const body = { name: `Lamp ${n}`, description: "For load tests.", price: 19.99, quantity, category };
        const answer = call("POST", "/products", { name: "POST /products", token: seller, body, expected: [201] });
        const id = json(answer)?.id;
        if (id) ids.push(id);
    }
    // A nonexistent product keeps the iterations running without stock. They fail individually and
    // are counted.
    return { products: ids.length > 0 ? ids : ["00000000-0000-4000-8000-000000000000"], category };
}

/** Waits for pending orders, then runs both invariant checks. A violation fails the run. */
export function audit(): void {
    settle();
    for (const [service, admin] of [["products", settings.productsAdmin], ["orders", settings.ordersAdmin]]) {
        const answer = http.get(`${admin}/invariants`, { tags: { name: "invariants" }, timeout: "60s" });
        const report = answer.status === 200 ? JSON.parse(String(answer.body)) : { violations: [`${service} returned ${answer.status}`] };
        checked.add(answer.status === 200 ? 1 : 0);
        broken.add(report.violations.length, { service });
        for (const violation of report.violations) console.error(`${service}: ${violation}`);
    }
}

function settle(): void {
    for (let second = 0; second < settings.settleSeconds; second++) {
        const answer = http.get(`${settings.ordersAdmin}/metrics`, { tags: { name: "metrics" } });
        // The gauges are read from the store every few seconds, so wait for two readings after the
        // last order.
        if (answer.status === 200 && inFlight(String(answer.body)) === 0 && second >= 6) return;
        sleep(1);
    }
    broken.add(1, { service: "orders" });
    console.error(`orders still in progress ${settings.settleSeconds} s after the load`);
}

function inFlight(metrics: string): number {
    const lines = metrics.split("\n").filter((line) => line.startsWith("palisade_saga_in_flight{"));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
