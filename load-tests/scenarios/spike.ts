// Spike: ten times the normal rate within two seconds, for a short time.

import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { runJourney } from "../lib/user_journeys.ts";

const RATE = number("RATE", 30);
const LENGTH = duration("DURATION", "15s");

export const options = {
    scenarios: {
        spike: {
            executor: "ramping-arrival-rate",
            startRate: RATE,
            stages: [
                { target: RATE, duration: LENGTH },
                { target: 10 * RATE, duration: "2s" },
                { target: 10 * RATE, duration: LENGTH },
                { target: RATE, duration: "2s" },
                { target: RATE, duration: LENGTH },
            ],
            preAllocatedVUs: number("VUS", 200),
            maxVUs: 4 * number("VUS", 200),
        },
    },
    thresholds: {
        ...thresholds({ iterations: number("MIN_ITERATIONS", 10 * RATE), p95: 3_000, p99: 8_000, rejected: 0.7, routes: ROUTES }),
        dropped_iterations: ["count>=0"],
    },
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 1_000_000);
export default (catalogue: Catalogue) => runJourney(catalogue, true);
export const teardown = audit;
export const handleSummary = report("spike");
