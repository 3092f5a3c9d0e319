// HTTP API of the shop for the scripts. Every call lists its expected statuses. Any other response
// counts as unexpected and fails the run.

import { check } from "k6";
import http from "k6/http";
import type { RefinedResponse, ResponseType } from "k6/http";
import { Counter, Rate } from "k6/metrics";
import { settings } from "./settings.ts";

export type Answer = RefinedResponse<"text">;

/** Unexpected responses: 5xx, a rejection without its header, an invalid body. Must stay 0. */
export const unexpected = new Counter("unexpected_answers");
/** Expected responses. A run without any fails. */
export const good = new Counter("good_answers");
/** Share of rejected requests: rate limiting (429) or load shedding (503 with Retry-After). */
export const refused = new Rate("refused");
/** Orders by `outcome`: confirmed, accepted (202), or the problem code. */
export const orders = new Counter("orders");

interface Call {
    /** Route template for the tag `name`, without IDs. */
    name: string;
    token?: string;
    body?: unknown;
    headers?: Record<string, string>;
    /** Expected statuses. */
    expected: number[];
    /** Rejections (429, 503) are expected. */
    mayRefuse?: boolean;
}

// k6 must not classify failures: each response is checked here.
http.setResponseCallback(http.expectedStatuses({ min: 100, max: 599 }));

/** Sends a request and checks the common properties of the gateway's responses. */
export function call(method: string, path: string, { name, token, body, headers, expected, mayRefuse }: Call): Answer {
    const sent: Record<string, string> = { ...headers };
    if (token) sent["authorization"] = `Bearer ${token}`;
    if (body !== undefined) sent["content-type"] = "application/json";
    const params = { headers: sent, tags: { name }, responseType: "text" as ResponseType };
    const text = body === undefined ? null : JSON.stringify(body);
    const answer = http.request(method, `${settings.baseUrl}${path}`, text, params) as Answer;
    const rejected = isRejection(answer);
    refused.add(rejected, { name });
    const right = (expected.includes(answer.status) && isWellFormed(answer)) || (rejected && mayRefuse === true);
    assertStatus(name, right, answer.status, () => `${answer.error} ${String(answer.body).slice(0, 300)}`);
    return answer;
}

/** Counts a response as expected or unexpected. `details` describes an unexpected one. */
export function assertStatus(name: string, right: boolean, status: number, details: () => string): void {
    check(right, { "response is expected": () => right }, { name });
    if (right) {
        good.add(1, { name });
    } else {
        unexpected.add(1, { name, status: String(status) });
        console.warn(`${name}: ${status} ${details()}`);
    }
}

/** Counts the outcome of an order. */
export function countOrder(answer: Answer): void {
    const outcome = answer.status === 201 ? "confirmed" : answer.status === 202 ? "accepted" : (json(answer)?.code ?? "failed");
    orders.add(1, { outcome });
}

/** Whether the response is a 429 or 503 with `Retry-After`. */
export function isRejection(answer: Answer): boolean {
    return (answer.status === 429 || answer.status === 503) && Number(header(answer, "Retry-After")) >= 1 && isWellFormed(answer);
}

/** Returns a header by its canonical name. */
export function header(answer: Answer, name: string): string | undefined {
    return answer.headers[name];
}

/** Returns the body as JSON, `undefined` if it is invalid. */
export function json(answer: Answer): any {
    try {
        return JSON.parse(String(answer.body));
    } catch {
        return undefined;
    }
}

/** Whether the response has the common properties: ID headers, and a problem body for errors. */
function isWellFormed(answer: Answer): boolean {
    if (!header(answer, "X-Request-Id") || !header(answer, "X-Trace-Id")) return false;
    if (answer.status < 400) return true;
    const problem = json(answer);
    return header(answer, "Content-Type") === "application/problem+json" && problem?.status === answer.status && !!problem?.code;
}
