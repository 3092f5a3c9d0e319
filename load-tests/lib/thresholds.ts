// Pass and fail criteria of a run. Correctness has no tolerance. Latency thresholds are so wide
// that only a real defect crosses them.

import { settings } from "./settings.ts";

/** Routes with their own report line. */
export const ROUTES = [
    "GET /products",
    "GET /products?q",
    "GET /products/{id}",
    "POST /orders",
    "GET /orders/{id}",
    "PUT /orders/{id}/status",
];

/** Outcomes with their own report line: statuses, and problem codes of refusals. */
export const OUTCOMES = [
    "200", "201", "202", "204", "304",
    "insufficient_stock", "unknown_product", "product_inactive", "illegal_transition", "request_in_progress", "not_found",
    "rate_limited", "overloaded", "upstream_unavailable", "deadline_exceeded", "unauthenticated", "internal", "no_response",
];

interface Limits {
    /** Minimum number of iterations of a valid run. */
    iterations: number;
    /** Maximum latency, milliseconds. */
    p95: number;
    p99: number;
    /** Maximum number of iterations that could not be started in time. */
    dropped?: number;
    /** Maximum share of rejected requests. */
    rejected?: number;
    /** Routes to report separately. */
    routes?: string[];
}

export function thresholds({ iterations, p95, p99, dropped, rejected, routes }: Limits): Record<string, string[]> {
    const shown = (routes ?? []).map((name) => [`http_req_duration{name:${name}}`, ["p(99)>=0"]]);
    // These thresholds only make the report distinguish routes and outcomes.
    const byOutcome = OUTCOMES.flatMap((outcome) => [
        [`outcome_duration{outcome:${outcome}}`, ["p(99)>=0"]],
        ...(routes ?? []).map((name) => [`outcome_duration{name:${name},outcome:${outcome}}`, ["p(99)>=0"]]),
    ]);
    return {
        // A metric without samples fails no threshold. These counts fail a run that did nothing.
        iterations: [`count>=${iterations}`],
        expected_responses: [`count>=${iterations}`],
        checks: ["rate==1"],
        unexpected_responses: ["count==0"],
        invariant_checks: ["count==2"],
        invariant_violations: ["count==0"],
        http_req_duration: latency(p95, p99),
        dropped_iterations: [settings.judgeLatency ? `count<=${dropped ?? 0}` : "count>=0"],
        rejected: [`rate<=${rejected ?? 0}`],
        ...Object.fromEntries([...shown, ...byOutcome]),
    };
}

/** Returns latency thresholds, milliseconds. They always hold if latency is not judged. */
export function latency(p95: number, p99: number): string[] {
    return settings.judgeLatency ? [`p(95)<${p95}`, `p(99)<${p99}`] : ["p(99)>=0"];
}
