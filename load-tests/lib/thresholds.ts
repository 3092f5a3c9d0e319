// What makes a run red. Correctness has no tolerance; latency has guards so wide that only something broken crosses them.

/** Names that a report has a line for. */
export const ROUTES = [
    "GET /products",
    "GET /products?q",
    "GET /products/{id}",
    "POST /orders",
    "GET /orders/{id}",
    "PUT /orders/{id}/status",
];

interface Guards {
    /** The fewest iterations that prove anything. */
    iterations: number;
    /** Most of all answers, and nearly all, milliseconds. */
    p95: number;
    p99: number;
    /** Iterations that could not be started in time: the load was not what it says. */
    dropped?: number;
    /** The largest share of requests that may be refused for protection. */
    refused?: number;
    /** Routes to show one by one. */
    routes?: string[];
}

export function thresholds({ iterations, p95, p99, dropped, refused, routes }: Guards): Record<string, string[]> {
    const shown = (routes ?? []).map((name) => [`http_req_duration{name:${name}}`, ["p(99)>=0"]]);
    return {
        // A metric without a sample crosses no threshold: these counts do, so that a run that did nothing is red.
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
