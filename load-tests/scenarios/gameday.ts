// Load of a game day: a constant rate of user journeys during fault injection. The game day runner
// evaluates the responses.

import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { ACCEPTED_PREFIX, runJourney } from "../lib/user_journeys.ts";

const RATE = number("RATE", 40);

export const options = {
    scenarios: {
        gameday: {
            executor: "constant-arrival-rate",
            rate: RATE,
            duration: duration("DURATION", "40s"),
            preAllocatedVUs: number("VUS", 100),
            maxVUs: 8 * number("VUS", 100),
        },
    },
    thresholds: {
        iterations: [`count>=${number("MIN_ITERATIONS", 5 * RATE)}`],
        invariant_checks: ["count==2"],
        invariant_violations: ["count==0"],
    },
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 1_000_000);

export default function gameday(catalogue: Catalogue): void {
    runJourney(catalogue, true, (id) => console.log(`${ACCEPTED_PREFIX} ${id}`));
}

export const teardown = audit;
export const handleSummary = report("gameday");
