// HTTP API of the shop for the scripts. Every call lists its expected statuses. Any other response
// counts as unexpected and fails the run.

import { check } from "k6";
import http from "k6/http";
import type { RefinedResponse, ResponseType } from "k6/http";
import { Counter, Rate, Trend } from "k6/metrics";
import { noteResponse, traceParent } from "./notable_requests.ts";
import { settings } from "./settings.ts";

export type Response = RefinedResponse<"text">;

/** Unexpected responses: 5xx, a rejection without its header, an invalid body. Must stay 0. */
const unexpectedResponses = new Counter("unexpected_responses");
/** Expected responses. A run without any fails. */
const expectedResponses = new Counter("expected_responses");
/** Share of rejected requests: rate limiting (429) or load shedding (503 with Retry-After). */
const rejections = new Rate("rejected");
/** Durations by route (`name`) and `outcome`: the status, or the problem code of a refusal. */
const outcomes = new Trend("outcome_duration", true);
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
    mayReject?: boolean;
}

// k6 must not classify failures: each response is checked here.
http.setResponseCallback(http.expectedStatuses({ min: 100, max: 599 }));

/** Sends a request and checks the common properties of the gateway's responses. */
export function call(method: string, path: string, { name, token, body, headers, expected, mayReject }: Call): Response {
    const sent: Record<string, string> = { traceparent: traceParent(), ...headers };
    if (token) sent["authorization"] = `Bearer ${token}`;
    if (body !== undefined) sent["content-type"] = "application/json";
    const params = { headers: sent, tags: { name }, responseType: "text" as ResponseType };
    const text = body === undefined ? null : JSON.stringify(body);
    const response = http.request(method, `${settings.baseUrl}${path}`, text, params) as Response;
    const rejected = isRejection(response);
    rejections.add(rejected, { name });
    const isExpected = (expected.includes(response.status) && isWellFormed(response)) || (rejected && mayReject === true);
    const outcome = outcomeOf(response);
    outcomes.add(response.timings.duration, { name, outcome });
    noteResponse({ name, outcome, duration: response.timings.duration, trace: header(response, "X-Trace-Id"), failed: !isExpected });
    countResponse(name, isExpected, response.status, () => `${response.error} ${String(response.body).slice(0, 300)}`);
    return response;
}

/** Returns the status of a success, the problem code of a refusal, or the reason for no response. */
function outcomeOf(response: Response): string {
    if (response.status === 0) return "no_response";
    return response.status < 400 ? String(response.status) : String(json(response)?.code ?? response.status);
}

/** Counts a response as expected or unexpected. `details` describes an unexpected one. */
export function countResponse(name: string, isExpected: boolean, status: number, details: () => string): void {
    check(isExpected, { "response is expected": () => isExpected }, { name });
    if (isExpected) {
        expectedResponses.add(1, { name });
    } else {
        unexpectedResponses.add(1, { name, status: String(status) });
        console.warn(`${name}: ${status} ${details()}`);
    }
}

/** Counts the outcome of an order. */
export function countOrder(response: Response): void {
    const outcome = response.status === 201 ? "confirmed" : response.status === 202 ? "accepted" : (json(response)?.code ?? "failed");
    orders.add(1, { outcome });
}

/** Whether the response is a 429 or 503 with `Retry-After`. */
export function isRejection(response: Response): boolean {
    return (response.status === 429 || response.status === 503) && Number(header(response, "Retry-After")) >= 1 && isWellFormed(response);
}

/** Returns a header by its canonical name. */
export function header(response: Response, name: string): string | undefined {
    return response.headers[name];
}

/** Returns the body as JSON, `undefined` if it is invalid. */
export function json(response: Response): any {
    try {
        return JSON.parse(String(response.body));
    } catch {
        return undefined;
    }
}

/** Whether the response has the common properties: ID headers, and a problem body for errors. */
function isWellFormed(response: Response): boolean {
    if (!header(response, "X-Request-Id") || !header(response, "X-Trace-Id")) return false;
    if (response.status < 400) return true;
    const problem = json(response);
    return header(response, "Content-Type") === "application/problem+json" && problem?.status === response.status && !!problem?.code;
}
