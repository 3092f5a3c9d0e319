// Load: a constant arrival rate of mixed user journeys.

import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { ROUTES, thresholds } from "../lib/thresholds.ts";
import { runJourney } from "../lib/user_journeys.ts";

const RATE = number("RATE", 50);

export const options = {
    scenarios: {
        load: {
            executor: "constant-arrival-rate",
            rate: RATE,
            duration: duration("DURATION", "60s"),
            preAllocatedVUs: number("VUS", 50),
            maxVUs: 4 * number("VUS", 50),
        },
    },
    thresholds: thresholds({ iterations: number("MIN_ITERATIONS", 5 * RATE), p95: 1_000, p99: 3_000, dropped: RATE, routes: ROUTES }),
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 1_000_000);
export default (catalogue: Catalogue) => runJourney(catalogue);
export const teardown = audit;
export const handleSummary = report("load");
