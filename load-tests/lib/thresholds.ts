// Pass and fail criteria of a run. Correctness has no tolerance. Latency thresholds are so wide
// that only a real defect crosses them.

/** Routes with their own report line. */
export const ROUTES = [
    "GET /products",
    "GET /products?q",
    "GET /products/{id}",
    "POST /orders",
    "GET /orders/{id}",
    "PUT /orders/{id}/status",
];

interface Guards {
    /** Minimum number of iterations of a valid run. */
    iterations: number;
    /** Maximum latency, milliseconds. */
    p95: number;
    p99: number;
    /** Maximum number of iterations that could not be started in time. */
    dropped?: number;
    /** Maximum share of rejected requests. */
    refused?: number;
    /** Routes to report separately. */
    routes?: string[];
}

export function thresholds({ iterations, p95, p99, dropped, refused, routes }: Guards): Record<string, string[]> {
    const shown = (routes ?? []).map((name) => [`http_req_duration{name:${name}}`, ["p(99)>=0"]]);
    return {
        // A metric without samples fails no threshold. These counts fail a run that did nothing.
        iterations: [`count>=${iterations}`],
        good_answers: [`count>=${iterations}`],
        checks: ["rate==1"],
        unexpected_answers: ["count==0"],
        invariants_checked: ["count==2"],
        invariants_broken: ["count==0"],
        http_req_duration: [`p(95)<${p95}`, `p(99)<${p99}`],
        dropped_iterations: [`count<=${dropped ?? 0}`],
        refused: [`rate<=${refused ?? 0}`],
        ...Object.fromEntries(shown),
    };
}
