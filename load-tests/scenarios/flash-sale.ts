// Flash sale: many buyers rush at one product while others shop as usual. Exactly the available
// units are sold, a late buyer gets the reason, and the usual shoppers are served.

import { Counter } from "k6/metrics";
import { call, countOrder, isRejection, json } from "../lib/api.ts";
import { commonOptions, count, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { latency, thresholds } from "../lib/thresholds.ts";
import { ALL_SCOPES, token } from "../lib/tokens.ts";
import { ownToken, runJourney } from "../lib/user_journeys.ts";
import { uuidv4 } from "../lib/uuid.ts";

const RATE = number("RATE", 30);
const LENGTH = duration("DURATION", "15s");
const UNITS = number("UNITS", 20 * RATE);

/** Immediately confirmed orders of the product on sale, at most the number of units. */
const sold = new Counter("sold");
/** Orders rejected because the product is sold out. */
const tooLate = new Counter("too_late");
/** Rejected orders without a reason that a buyer can act on. Must stay 0. */
const untyped = new Counter("untyped_rejections");
/** Set if the units that are left cannot all be sold, or one more can. Must stay 0. */
const wrongStock = new Counter("wrong_stock");

interface Sale {
    onSale: string;
    catalogue: Catalogue;
}

export const options = {
    scenarios: {
        sale: {
            executor: "ramping-arrival-rate",
            exec: "rush",
            startRate: RATE,
            stages: [
                { target: 10 * RATE, duration: "2s" },
                { target: 10 * RATE, duration: LENGTH },
            ],
            preAllocatedVUs: number("VUS", 200),
            maxVUs: 4 * number("VUS", 200),
        },
        usual: {
            executor: "constant-arrival-rate",
            exec: "shop",
            rate: RATE,
            timeUnit: "1s",
            duration: LENGTH,
            preAllocatedVUs: number("VUS", 50),
            maxVUs: 4 * number("VUS", 50),
        },
    },
    thresholds: {
        ...thresholds({
            iterations: number("MIN_ITERATIONS", 10 * RATE),
            p95: 3_000,
            p99: 8_000,
            rejected: 0.7,
            routes: ["GET /products/{id}", "POST /orders"],
        }),
        "http_req_duration{scenario:usual}": latency(1_500, 3_000),
        "rejected{scenario:usual}": [settings.judgeLatency ? "rate<=0.05" : "rate<=0.7"],
        "http_req_duration{name:POST /orders}": latency(3_000, 6_000),
        dropped_iterations: ["count>=0"],
        sold: [`count<=${UNITS}`, "count>=1"],
        too_late: ["count>=0"],
        untyped_rejections: ["count==0"],
        wrong_stock: ["count==0"],
    },
    ...commonOptions,
};

export const setup = (): Sale => ({
    onSale: createProducts(1, UNITS).products[0]!,
    catalogue: createProducts(settings.products, 1_000_000),
});

/** Looks at the product on sale, and orders one. */
export function rush({ onSale }: Sale): void {
    const buyer = ownToken();
    call("GET", `/products/${onSale}`, { name: "GET /products/{id}", token: buyer, expected: [200], mayReject: true });
    const headers = { "idempotency-key": uuidv4() };
    const body = { items: [{ productId: onSale, quantity: 1 }] };
    const request = { name: "POST /orders", token: buyer, body, headers, expected: [201, 202, 409], mayReject: true };
    const response = call("POST", "/orders", request);
    countOrder(response);
    const isSoldOut = response.status === 409 && json(response)?.code === "insufficient_stock";
    if (response.status === 201) sold.add(1);
    else if (isSoldOut) tooLate.add(1);
    else if (response.status !== 202 && !isRejection(response)) untyped.add(1);
}

export const shop = ({ catalogue }: Sale) => runJourney(catalogue, true);

export function teardown({ onSale }: Sale): void {
    audit();
    const admin = token("load-admin", ALL_SCOPES);
    const left = json(call("GET", `/products/${onSale}`, { name: "teardown", token: admin, expected: [200] }))?.quantity;
    if (!(left >= 0 && left < UNITS)) wrongStock.add(1);
    // All accepted orders are finished: what is left can be sold, and not one unit more.
    const order = (quantity: number, expected: number[]) => {
        const headers = { "idempotency-key": uuidv4() };
        const body = { items: [{ productId: onSale, quantity }] };
        return call("POST", "/orders", { name: "teardown", token: admin, body, headers, expected }).status;
    };
    // A slow service accepts the order (202) and ends it later.
    if (left === 0 || order(left, [201, 202]) === 201) order(1, [409]);
}

export const handleSummary = report("flash-sale", (data) => [
    `${UNITS} units: ${count(data, "sold")} orders confirmed immediately, ${count(data, "too_late")} came too late.`,
    "",
]);
