// Authentication: wrong, missing, expired and foreign tokens at a constant rate are rejected
// correctly, while valid ones are served.

import { call, header } from "../lib/api.ts";
import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { thresholds } from "../lib/thresholds.ts";
import { ALL_SCOPES, CUSTOMER, mint, token } from "../lib/tokens.ts";
import { randomElement, runJourney } from "../lib/user_journeys.ts";

const RATE = number("RATE", 40);

export const options = {
    scenarios: {
        auth: {
            executor: "constant-arrival-rate",
            rate: RATE,
            duration: duration("DURATION", "30s"),
            preAllocatedVUs: number("VUS", 40),
            maxVUs: 4 * number("VUS", 40),
        },
    },
    thresholds: thresholds({ iterations: number("MIN_ITERATIONS", 5 * RATE), p95: 1_000, p99: 3_000, dropped: RATE }),
    ...commonOptions,
};

export const setup = () => createProducts(5, 1_000_000);

/** Invalid tokens and their expected status. Without a secret only those that need none. */
function bad(): [string | undefined, number][] {
    const good = token("load-admin", ALL_SCOPES);
    const [head, , signature] = good.split(".");
    const always: [string | undefined, number][] = [
        [undefined, 401],
        ["not-a-token", 401],
        [`${good}x`, 401],
        [`${head}.eyJzdWIiOiJyb290In0.${signature}`, 401],
        ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJyb290In0.", 401],
    ];
    if (!settings.jwtSecret) return always;
    const claims = { subject: "mallory", scope: ALL_SCOPES };
    return [
        ...always,
        [mint({ ...claims, lifetime: -120 }), 401],
        [mint({ ...claims, secret: "another-secret-of-thirty-two-byte" }), 401],
        [mint({ ...claims, issuer: "https://elsewhere.invalid" }), 401],
        [mint({ ...claims, audience: "orders" }), 401],
        [mint({ subject: "reader", scope: CUSTOMER }), 403],
    ];
}

export default function auth(catalogue: Catalogue): void {
    const [one, status] = randomElement(bad());
    const body = { name: "Stolen", price: 1, quantity: 1, category: "none" };
    const response = call("POST", "/products", { name: "POST /products", token: one, body, expected: [status] });
    if (status === 401 && !header(response, "Www-Authenticate")?.startsWith("Bearer")) throw new Error("401 without WWW-Authenticate challenge");
    runJourney(catalogue);
}

export const teardown = audit;
export const handleSummary = report("auth");
