// Slowest and failed requests, with the trace that explains them. The runner reads them from the
// output and adds them to the report.

import { settings } from "./settings.ts";

export interface Notable {
    name: string;
    outcome: string;
    /** Milliseconds. */
    duration: number;
    /** Trace id of the gateway (`x-trace-id`), which does not continue the trace of a caller. */
    trace?: string;
    failed: boolean;
}

/** Prefix of the output line of a notable request. */
const PREFIX = "notable request";
/** Slow requests that each virtual user remembers. The report shows fewer. */
const REMEMBERED = 5;

/** Durations of the slowest requests of this virtual user, slowest first. */
const slowest: number[] = [];

/** Prints a request that failed, or is one of the slowest of this virtual user so far. */
export function noteResponse(request: Notable): void {
    if (!settings.reports) return;
    const isSlow = slowest.length < REMEMBERED || request.duration > slowest[slowest.length - 1];
    if (isSlow) {
        slowest.push(request.duration);
        slowest.sort((a, b) => b - a);
        slowest.length = Math.min(slowest.length, REMEMBERED);
    }
    if (isSlow || request.failed) console.info(`${PREFIX} ${JSON.stringify(request)}`);
}

/** Returns a W3C trace context of a new trace, sampled. The gateway links its own trace to it. */
export function traceParent(): string {
    return `00-${hex(32)}-${hex(16)}-01`;
}

function hex(digits: number): string {
    let text = "";
    while (text.length < digits) text += Math.floor(Math.random() * 0x1_0000_0000).toString(16).padStart(8, "0");
    return text;
}
