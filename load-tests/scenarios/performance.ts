// Performance measurement (`make performance`): one route at a constant rate. Prints one line of
// JSON with the results.

import { check } from "k6";
import http from "k6/http";
import { Counter } from "k6/metrics";
import type { Data } from "../lib/report.ts";
import { commonOptions } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { randomElement } from "../lib/user_journeys.ts";
import { uuidv4 } from "../lib/uuid.ts";

const VUS = number("VUS", 64);
const url = __ENV.URL ?? settings.baseUrl;
/** Product IDs. If set, each request orders one unit of one product. */
const products = (__ENV.PRODUCT_IDS ?? "").split(",").filter((id) => id !== "");

const unexpected = new Counter("unexpected_responses");
/** Orders answered with 202 and finished later. */
const deferred = new Counter("deferred");

export const options = {
    scenarios: {
        performance: {
            executor: "constant-arrival-rate",
            rate: number("RATE", 100),
            duration: duration("DURATION", "5s"),
            preAllocatedVUs: VUS,
            maxVUs: VUS,
            gracefulStop: "5s",
        },
    },
    ...commonOptions,
};

export default function request(): void {
    const headers: Record<string, string> = { authorization: `Bearer ${settings.token}` };
    let response;
    if (products.length > 0) {
        headers["content-type"] = "application/json";
        headers["idempotency-key"] = uuidv4();
        response = http.post(url, JSON.stringify({ items: [{ productId: randomElement(products), quantity: 1 }] }), { headers });
    } else {
        response = http.get(url, { headers });
    }
    const expected = products.length > 0 ? [201, 202] : [200];
    check(response, { "response is expected": () => expected.includes(response.status) });
    if (!expected.includes(response.status)) unexpected.add(1);
    if (response.status === 202) deferred.add(1);
}

export function handleSummary(data: Data): Record<string, string> {
    const count = (metric: string) => data.metrics[metric]?.values["count"] ?? 0;
    const times = data.metrics["http_req_duration"]?.values ?? {};
    const result = {
        requests: count("http_reqs"),
        wrong: count("unexpected_responses"),
        deferred: count("deferred"),
        seconds: data.state.testRunDurationMs / 1000,
        p50: times["med"] ?? 0,
        p99: times["p(99)"] ?? 0,
    };
    return { stdout: `${JSON.stringify(result)}\n` };
}
