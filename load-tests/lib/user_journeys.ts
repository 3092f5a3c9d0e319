// User journeys of a shop and their weights.

import exec from "k6/execution";
import { uuidv4 } from "./uuid.ts";
import { call, countOrder, header, json } from "./api.ts";
import type { Catalogue } from "./shop.ts";
import { CUSTOMER, token } from "./tokens.ts";

interface Journey {
    catalogue: Catalogue;
    token: string;
    /** Rejections (429, 503) are expected, under overload. */
    mayReject: boolean;
    /** Called for every accepted or confirmed order. */
    accepted?: (id: string) => void;
}

/** Prefix of the output line of an accepted order. */
export const ACCEPTED_PREFIX = "accepted order";

/** Orders of this virtual user, newest last. */
const ownOrders: string[] = [];
const MAX_REMEMBERED = 20;

const tokens = new Map<string, string>();

/** Returns the token of this virtual user. */
export function ownToken(): string {
    const subject = `load-user-${exec.vu.idInTest}`;
    if (!tokens.has(subject)) tokens.set(subject, token(subject, CUSTOMER));
    return tokens.get(subject)!;
}

const MIX: [number, (journey: Journey) => void][] = [
    [40, browse],
    [25, viewProduct],
    [10, search],
    [15, buy],
    [7, viewOrder],
    [3, cancel],
];

/** Runs a random user journey, selected by weight. */
export function runJourney(catalogue: Catalogue, mayReject = false, accepted?: (id: string) => void): void {
    let draw = Math.random() * MIX.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, journey] of MIX) {
        draw -= weight;
        if (draw < 0) return journey({ catalogue, token: ownToken(), mayReject, accepted });
    }
}

/** Returns a random element. */
export function randomElement<T>(list: T[]): T {
    return list[Math.floor(Math.random() * list.length)];
}

export function browse({ catalogue, token, mayReject }: Journey): void {
    const path = `/products?category=${catalogue.category}&limit=20`;
    const first = call("GET", path, { name: "GET /products", token, expected: [200], mayReject });
    const next = json(first)?.nextCursor;
    if (next) call("GET", `${path}&cursor=${encodeURIComponent(next)}`, { name: "GET /products", token, expected: [200], mayReject });
}

export function viewProduct({ catalogue, token, mayReject }: Journey): void {
    const path = `/products/${randomElement(catalogue.products)}`;
    const response = call("GET", path, { name: "GET /products/{id}", token, expected: [200], mayReject });
    const tag = header(response, "Etag");
    // A purchase in between changes the representation.
    if (response.status === 200 && tag && Math.random() < 0.2) {
        const headers = { "if-none-match": tag };
        call("GET", path, { name: "GET /products/{id}", token, headers, expected: [200, 304], mayReject });
    }
}

export function search({ token, mayReject }: Journey): void {
    const path = `/products?q=lamp&minPrice=10&maxPrice=30&limit=10`;
    call("GET", path, { name: "GET /products?q", token, expected: [200], mayReject });
}

/** Orders one to three products: confirmed, accepted (202), or rejected with a reason. */
export function buy({ catalogue, token, mayReject, accepted }: Journey): void {
    const items = Array.from({ length: 1 + Math.floor(Math.random() * 3) }, () => ({ productId: randomElement(catalogue.products), quantity: 1 }));
    const headers = { "idempotency-key": uuidv4() };
    const placeOrder = () =>
        call("POST", "/orders", { name: "POST /orders", token, body: { items }, headers, expected: [201, 202, 409], mayReject });
    let response = placeOrder();
    const id = json(response)?.id;
    if (response.status === 201 && Math.random() < 0.1) {
        // Sent twice, like a client that lost the response: the same order must be returned.
        response = placeOrder();
        if (response.status === 201 && json(response)?.id !== id) throw new Error(`one idempotency key created two orders: ${id} and ${json(response)?.id}`);
    }
    countOrder(response);
    if (id && (response.status === 201 || response.status === 202)) {
        ownOrders.push(id);
        accepted?.(id);
    }
    if (ownOrders.length > MAX_REMEMBERED) ownOrders.shift();
}

export function viewOrder({ token, mayReject }: Journey): void {
    if (ownOrders.length === 0) return void call("GET", "/orders?limit=5", { name: "GET /orders", token, expected: [200], mayReject });
    call("GET", `/orders/${randomElement(ownOrders)}`, { name: "GET /orders/{id}", token, expected: [200], mayReject });
}

export function cancel({ token, mayReject }: Journey): void {
    const id = ownOrders.pop();
    if (!id) return viewOrder({ token, mayReject, catalogue: { products: [], category: "" } });
    const body = { status: "CANCELLED" };
    // 409 if the order failed meanwhile.
    call("PUT", `/orders/${id}/status`, { name: "PUT /orders/{id}/status", token, body, expected: [200, 409], mayReject });
}
