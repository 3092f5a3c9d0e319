// Spike: ten times the normal rate within two seconds, for a short time.

import { report, summaryTrendStats } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, stock } from "../lib/shop.ts";
import type { Shelf } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { visit } from "../lib/visit.ts";

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
        ...thresholds({ iterations: number("MIN_ITERATIONS", 10 * RATE), p95: 3_000, p99: 8_000, refused: 0.7, routes: ROUTES }),
        dropped_iterations: ["count>=0"],
    },
    summaryTrendStats,
};

export const setup = () => stock(settings.products, 1_000_000);
export default (shelf: Shelf) => visit(shelf, true);
export const teardown = audit;
export const handleSummary = report("spike");
