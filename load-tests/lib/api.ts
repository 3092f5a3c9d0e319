// The HTTP API as the scripts use it: every call says which answers are right; any other is counted as unexpected and fails the run.

import { check } from "k6";
import http from "k6/http";
import type { RefinedResponse, ResponseType } from "k6/http";
import { Counter, Rate } from "k6/metrics";
import { settings } from "./settings.ts";

export type Answer = RefinedResponse<"text">;

/** Answers that nobody should get: a 5xx, a refusal without its header, a body that is not what it says. Must stay 0. */
export const unexpected = new Counter("unexpected_answers");
/** Answers that were as they should be, so that a run without any is not green. */
export const good = new Counter("good_answers");
/** Requests refused because the system protects itself: 429, or 503 with Retry-After. */
export const refused = new Rate("refused");
/** Orders by what became of them: `outcome` is confirmed, accepted (202), or the slug of the refusal. */
export const orders = new Counter("orders");

interface Call {
    /** Route with its template, the tag `name`: never an id. */
    name: string;
    token?: string;
    body?: unknown;
    headers?: Record<string, string>;
    /** Statuses that are right. */
    expected: number[];
    /** Whether the system may refuse for its own protection. */
    mayRefuse?: boolean;
}

// Whether a request failed is told by us, answer by answer.
http.setResponseCallback(http.expectedStatuses({ min: 100, max: 599 }));

/** Sends a request, and checks its answer for what every answer of the gateway has. */
export function call(method: string, path: string, { name, token, body, headers, expected, mayRefuse }: Call): Answer {
    const sent: Record<string, string> = { ...headers };
    if (token) sent["authorization"] = `Bearer ${token}`;
    if (body !== undefined) sent["content-type"] = "application/json";
    const params = { headers: sent, tags: { name }, responseType: "text" as ResponseType };
    const text = body === undefined ? null : JSON.stringify(body);
    const answer = http.request(method, `${settings.baseUrl}${path}`, text, params) as Answer;
    const politely = isRefusal(answer);
    refused.add(politely, { name });
    const right = (expected.includes(answer.status) && isWhole(answer)) || (politely && mayRefuse === true);
    judge(name, right, answer.status, () => `${answer.error} ${String(answer.body).slice(0, 300)}`);
    return answer;
}

/** Counts an answer, over HTTP or gRPC, as right or as unexpected; `told` says more of one that is not right. */
export function judge(name: string, right: boolean, status: number, told: () => string): void {
    check(right, { "the answer is one of those that are right": () => right }, { name });
    if (right) {
        good.add(1, { name });
    } else {
        unexpected.add(1, { name, status: String(status) });
        console.warn(`${name}: ${status} ${told()}`);
    }
}

/** Counts what became of an order. */
export function countOrder(answer: Answer): void {
    const outcome = answer.status === 201 ? "confirmed" : answer.status === 202 ? "accepted" : (json(answer)?.code ?? "failed");
    orders.add(1, { outcome });
}

/** 429 or 503, and when to come back. */
export function isRefusal(answer: Answer): boolean {
    return (answer.status === 429 || answer.status === 503) && Number(header(answer, "Retry-After")) >= 1 && isWhole(answer);
}

/** A header by its canonical name. */
export function header(answer: Answer, name: string): string | undefined {
    return answer.headers[name];
}

/** The body as JSON; nothing if it is none. */
export function json(answer: Answer): any {
    try {
        return JSON.parse(String(answer.body));
    } catch {
        return undefined;
    }
}

/** What every answer has: an id to ask about it, and the form of its kind. */
function isWhole(answer: Answer): boolean {
    if (!header(answer, "X-Request-Id") || !header(answer, "X-Trace-Id")) return false;
    if (answer.status < 400) return true;
    const problem = json(answer);
    return header(answer, "Content-Type") === "application/problem+json" && problem?.status === answer.status && !!problem?.code;
}
