// Stress: up to five times the capacity and down again. Excess requests are rejected properly, and
// nothing breaks.

import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { runJourney } from "../lib/user_journeys.ts";

/** Capacity, iterations per second, as found by `breakpoint`. */
const CAPACITY = number("RATE", 200);
const STEP = duration("DURATION", "20s");

export const options = {
    scenarios: {
        stress: {
            executor: "ramping-arrival-rate",
            startRate: CAPACITY / 2,
            stages: [1, 3, 5, 5, 1].map((times) => ({ target: times * CAPACITY, duration: STEP })),
            preAllocatedVUs: number("VUS", 300),
            maxVUs: 3 * number("VUS", 300),
        },
    },
    // Rejections are expected here, within limits. Dropped iterations are a normal effect of
    // overload.
    thresholds: {
        ...thresholds({ iterations: number("MIN_ITERATIONS", 5 * CAPACITY), p95: 5_000, p99: 11_000, rejected: 0.9, routes: ROUTES }),
        dropped_iterations: ["count>=0"],
    },
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 1_000_000);
export default (catalogue: Catalogue) => runJourney(catalogue, true);
export const teardown = audit;
export const handleSummary = report("stress");
