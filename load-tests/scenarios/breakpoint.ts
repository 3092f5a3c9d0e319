// Breakpoint: increases the rate step by step to find the highest rate that is served well.

import type { Data } from "../lib/report.ts";
import { commonOptions, report } from "../lib/report.ts";
import { number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { thresholds } from "../lib/thresholds.ts";
import { runJourney } from "../lib/user_journeys.ts";

const FIRST = number("RATE", 100);
const STEPS = number("STEPS", 8);
const STEP_SECONDS = number("STEP_SECONDS", 15);
/** Maximum p99 of a step that is served well, milliseconds. Nearly no request may be rejected. */
const MAX_P99_MS = number("MAX_P99_MS", 250);
const MAX_REJECTED = 0.01;

/** Increases by half with each step. */
const rate = (step: number) => Math.round(FIRST * 1.5 ** step);
const steps = Array.from({ length: STEPS }, (_, step) => step);

export const options = {
    scenarios: Object.fromEntries(
        steps.map((step) => [
            `step_${step}`,
            {
                executor: "constant-arrival-rate",
                rate: rate(step),
                duration: `${STEP_SECONDS}s`,
                startTime: `${step * STEP_SECONDS}s`,
                preAllocatedVUs: number("VUS", 100),
                maxVUs: 6 * number("VUS", 100),
                gracefulStop: "0s",
            },
        ]),
    ),
    thresholds: {
        ...thresholds({ iterations: FIRST, p95: 10_000, p99: 12_000, rejected: 1 }),
        dropped_iterations: ["count>=0"],
        // These thresholds only make the report distinguish the steps.
        ...Object.fromEntries(
            steps.flatMap((step) => [
                [`http_req_duration{scenario:step_${step}}`, ["p(99)>=0"]],
                [`http_reqs{scenario:step_${step}}`, ["count>=0"]],
                [`rejected{scenario:step_${step}}`, ["rate>=0"]],
            ]),
        ),
    },
    ...commonOptions,
};

export const setup = () => createProducts(settings.products, 1_000_000);

export default (catalogue: Catalogue) => runJourney(catalogue, true);

export const teardown = audit;

export const handleSummary = report("breakpoint", (data: Data) => {
    const of = (metric: string, step: number, value: string) => data.metrics[`${metric}{scenario:step_${step}}`]?.values[value] ?? 0;
    const rows = steps.map((step) => {
        const [served, p99, rejected] = [of("http_reqs", step, "count"), of("http_req_duration", step, "p(99)"), of("rejected", step, "rate")];
        return { target: rate(step), served: served / STEP_SECONDS, p99, rejected, well: served > 0 && p99 <= MAX_P99_MS && rejected <= MAX_REJECTED };
    });
    const last = rows.findIndex(({ well }) => !well);
    const capacity = rows[(last === -1 ? rows.length : last) - 1];
    return [
        "| target iterations/s | served requests/s | p99 | rejected | served well |",
        "|---:|---:|---:|---:|---|",
        ...rows.map(({ target, served, p99, rejected, well }) =>
            `| ${target} | ${served.toFixed(0)} | ${p99.toFixed(0)} ms | ${(100 * rejected).toFixed(1)} % | ${well ? "yes" : "no"} |`),
        "",
        capacity
            ? `Capacity: ${capacity.served.toFixed(0)} requests/s (p99 within ${MAX_P99_MS} ms${last === -1 ? "; the last step was served well too" : ""}).`
            : "The first step was not served well.",
        "",
    ];
});
