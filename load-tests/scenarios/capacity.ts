// Performance measurement (`make performance`): one route at a constant rate. Prints one line of
// JSON with the results.

import { check } from "k6";
import http from "k6/http";
import { Counter } from "k6/metrics";
import type { Data } from "../lib/report.ts";
import { summaryTrendStats } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { any } from "../lib/visit.ts";
import { uuidv4 } from "../lib/uuid.ts";

const VUS = number("VUS", 64);
const url = __ENV.URL ?? settings.baseUrl;
/** Product IDs. If set, each request orders one unit of one product. */
const products = (__ENV.ORDER_OF ?? "").split(",").filter((id) => id !== "");

const wrong = new Counter("wrong_answers");
/** Orders answered with 202 and finished later. */
const later = new Counter("later");

export const options = {
    scenarios: {
        capacity: {
            executor: "constant-arrival-rate",
            rate: number("RATE", 100),
            duration: duration("DURATION", "5s"),
            preAllocatedVUs: VUS,
            maxVUs: VUS,
            gracefulStop: "5s",
        },
    },
    summaryTrendStats,
};

export default function capacity(): void {
    const headers: Record<string, string> = { authorization: `Bearer ${settings.token}` };
    let answer;
    if (products.length > 0) {
        headers["content-type"] = "application/json";
        headers["idempotency-key"] = uuidv4();
        answer = http.post(url, JSON.stringify({ items: [{ productId: any(products), quantity: 1 }] }), { headers });
    } else {
        answer = http.get(url, { headers });
    }
    const right = products.length > 0 ? [201, 202] : [200];
    check(answer, { "response is expected": () => right.includes(answer.status) });
    if (!right.includes(answer.status)) wrong.add(1);
    if (answer.status === 202) later.add(1);
}

export function handleSummary(data: Data): Record<string, string> {
    const count = (metric: string) => data.metrics[metric]?.values["count"] ?? 0;
    const times = data.metrics["http_req_duration"]?.values ?? {};
    const result = {
        requests: count("http_reqs"),
        wrong: count("wrong_answers"),
        later: count("later"),
        seconds: data.state.testRunDurationMs / 1000,
        p50: times["med"] ?? 0,
        p99: times["p(99)"] ?? 0,
    };
    return { stdout: `${JSON.stringify(result)}\n` };
}
