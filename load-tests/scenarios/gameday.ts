// Load of a game day: a constant rate of user journeys during fault injection. The game day runner
// evaluates the responses.

import { report, summaryTrendStats } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, stock } from "../lib/shop.ts";
import type { Shelf } from "../lib/shop.ts";
import { ACCEPTED_PREFIX, visit } from "../lib/visit.ts";

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
        invariants_checked: ["count==2"],
        invariants_broken: ["count==0"],
    },
    summaryTrendStats,
};

export const setup = () => stock(settings.products, 1_000_000);

export default function gameday(shelf: Shelf): void {
    visit(shelf, true, (id) => console.log(`${ACCEPTED_PREFIX} ${id}`));
}

export const teardown = audit;
export const handleSummary = report("gameday");
