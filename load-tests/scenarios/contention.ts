// Contention: one product with far fewer units than buyers. Exactly the available units are sold,
// all other orders are rejected.

import { Counter } from "k6/metrics";
import { call, countOrder, json } from "../lib/api.ts";
import { commonOptions, count, report } from "../lib/report.ts";
import { number } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { thresholds } from "../lib/thresholds.ts";
import { ALL_SCOPES, CUSTOMER, token } from "../lib/tokens.ts";
import { uuidv4 } from "../lib/uuid.ts";

const UNITS = number("UNITS", 25);
const BUYERS = number("ITERATIONS", 400);

/** Immediately confirmed orders, at most the number of units. */
const sold = new Counter("sold");
/** Set if units are missing or left over at the end. Must stay 0. */
const wrongStock = new Counter("wrong_stock");

export const options = {
    scenarios: { contention: { executor: "shared-iterations", vus: number("VUS", 40), iterations: BUYERS, maxDuration: "5m" } },
    thresholds: {
        ...thresholds({ iterations: BUYERS, p95: 4_000, p99: 8_000, routes: ["POST /orders"] }),
        sold: [`count<=${UNITS}`, "count>=1"],
        wrong_stock: ["count==0"],
    },
    ...commonOptions,
};

export const setup = () => createProducts(1, UNITS);

export default function buy({ products: [productId] }: Catalogue): void {
    const buyer = token(`buyer-${__VU}`, CUSTOMER);
    const headers = { "idempotency-key": uuidv4() };
    const body = { items: [{ productId, quantity: 1 }] };
    const response = call("POST", "/orders", { name: "POST /orders", token: buyer, body, headers, expected: [201, 202, 409] });
    if (response.status === 201) sold.add(1);
    countOrder(response);
}

export function teardown({ products: [productId] }: Catalogue): void {
    audit();
    const admin = token("load-admin", ALL_SCOPES);
    const response = call("GET", `/products/${productId}`, { name: "GET /products/{id}", token: admin, expected: [200] });
    // All accepted orders are finished: the stock must be exactly 0.
    if (json(response)?.quantity !== 0) wrongStock.add(1);
}

export const handleSummary = report("contention", (data) => [
    `${UNITS} units, ${BUYERS} buyers: ${count(data, "sold")} orders confirmed immediately.`,
    "",
]);
