// Soak: a moderate rate for hours. Leaks show in the runtime dashboard and in the latency of the
// last quarter.

import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { runJourney } from "../lib/user_journeys.ts";

const RATE = number("RATE", 30);

export const options = {
    scenarios: {
        soak: {
            executor: "constant-arrival-rate",
            rate: RATE,
            duration: duration("DURATION", "2h"),
            preAllocatedVUs: number("VUS", 50),
            maxVUs: 4 * number("VUS", 50),
        },
    },
    thresholds: thresholds({ iterations: number("MIN_ITERATIONS", 5 * RATE), p95: 1_000, p99: 3_000, dropped: RATE, routes: ROUTES }),
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 100_000_000);
export default (catalogue: Catalogue) => runJourney(catalogue);
export const teardown = audit;
export const handleSummary = report("soak");
