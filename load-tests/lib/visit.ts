// User journeys of a shop and their weights.

import exec from "k6/execution";
import { uuidv4 } from "./uuid.ts";
import { call, countOrder, header, json } from "./api.ts";
import type { Shelf } from "./shop.ts";
import { CUSTOMER, token } from "./tokens.ts";

interface Visit {
    shelf: Shelf;
    token: string;
    /** Rejections (429, 503) are expected, under overload. */
    mayRefuse: boolean;
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

const MIX: [number, (visit: Visit) => void][] = [
    [40, browse],
    [25, viewProduct],
    [10, search],
    [15, buy],
    [7, follow],
    [3, cancel],
];

/** Runs a random user journey, selected by weight. */
export function visit(shelf: Shelf, mayRefuse = false, accepted?: (id: string) => void): void {
    let draw = Math.random() * MIX.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, journey] of MIX) {
        draw -= weight;
        if (draw < 0) return journey({ shelf, token: ownToken(), mayRefuse, accepted });
    }
}

/** Returns a random element. */
export function any<T>(of: T[]): T {
    return of[Math.floor(Math.random() * of.length)];
}

export function browse({ shelf, token, mayRefuse }: Visit): void {
    const path = `/products?category=${shelf.category}&limit=20`;
    const first = call("GET", path, { name: "GET /products", token, expected: [200], mayRefuse });
    const next = json(first)?.nextCursor;
    if (next) call("GET", `${path}&cursor=${encodeURIComponent(next)}`, { name: "GET /products", token, expected: [200], mayRefuse });
}

export function viewProduct({ shelf, token, mayRefuse }: Visit): void {
    const path = `/products/${any(shelf.products)}`;
    const answer = call("GET", path, { name: "GET /products/{id}", token, expected: [200], mayRefuse });
    const tag = header(answer, "Etag");
    // A purchase in between changes the representation.
    if (answer.status === 200 && tag && Math.random() < 0.2) {
        const headers = { "if-none-match": tag };
        call("GET", path, { name: "GET /products/{id}", token, headers, expected: [200, 304], mayRefuse });
    }
}

export function search({ token, mayRefuse }: Visit): void {
    const path = `/products?q=lamp&minPrice=10&maxPrice=30&limit=10`;
    call("GET", path, { name: "GET /products?q", token, expected: [200], mayRefuse });
}

/** Orders one to three products: confirmed, accepted (202), or rejected with a reason. */
export function buy({ shelf, token, mayRefuse, accepted }: Visit): void {
    const items = Array.from({ length: 1 + Math.floor(Math.random() * 3) }, () => ({ productId: any(shelf.products), quantity: 1 }));
    const headers = { "idempotency-key": uuidv4() };
    const order = () => call("POST", "/orders", { name: "POST /orders", token, body: { items }, headers, expected: [201, 202, 409], mayRefuse });
    let answer = order();
    const id = json(answer)?.id;
    if (answer.status === 201 && Math.random() < 0.1) {
        // Sent twice, like a client that lost the response: the same order must be returned.
        answer = order();
        if (answer.status === 201 && json(answer)?.id !== id) throw new Error(`one idempotency key created two orders: ${id} and ${json(answer)?.id}`);
    }
    countOrder(answer);
    if (id && (answer.status === 201 || answer.status === 202)) {
        ownOrders.push(id);
        accepted?.(id);
    }
    if (ownOrders.length > MAX_REMEMBERED) ownOrders.shift();
}

export function follow({ token, mayRefuse }: Visit): void {
    if (ownOrders.length === 0) return void call("GET", "/orders?limit=5", { name: "GET /orders", token, expected: [200], mayRefuse });
    call("GET", `/orders/${any(ownOrders)}`, { name: "GET /orders/{id}", token, expected: [200], mayRefuse });
}

export function cancel({ token, mayRefuse }: Visit): void {
    const id = ownOrders.pop();
    if (!id) return follow({ token, mayRefuse, shelf: { products: [], category: "" } });
    const body = { status: "CANCELLED" };
    // 409 if the order failed meanwhile.
    call("PUT", `/orders/${id}/status`, { name: "PUT /orders/{id}/status", token, body, expected: [200, 409], mayRefuse });
}
