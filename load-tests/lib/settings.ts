// What can be set from outside, by environment. Every script reads its settings here and nowhere else.

function text(name: string, otherwise: string): string {
    return __ENV[name] || otherwise;
}

/** A whole number from the environment. */
export function number(name: string, otherwise: number): number {
    const value = Number(text(name, String(otherwise)));
    if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number, it is ${__ENV[name]}`);
    return value;
}

/** A length of time as k6 writes it, e.g. `30s`. */
export function duration(name: string, otherwise: string): string {
    return text(name, otherwise);
}

export const settings = {
    /** The gateway. */
    baseUrl: text("BASE_URL", "http://127.0.0.1:3000"),
    /** `host:port` of the gRPC services. */
    productsGrpc: text("PRODUCTS_GRPC", "127.0.0.1:5000"),
    ordersGrpc: text("ORDERS_GRPC", "127.0.0.1:5001"),
    /** The admin ports that know whether the invariants hold. */
    productsAdmin: text("PRODUCTS_ADMIN", "http://127.0.0.1:9465"),
    ordersAdmin: text("ORDERS_ADMIN", "http://127.0.0.1:9466"),
    /** A token for the gateway with all scopes, or what tokens are made with (HS256). */
    token: text("TOKEN", ""),
    productsToken: text("PRODUCTS_TOKEN", ""),
    ordersToken: text("ORDERS_TOKEN", ""),
    jwtSecret: text("JWT_SECRET", ""),
    jwtIssuer: text("JWT_ISSUER", ""),
    /** Where reports go; nothing is written without it. */
    reports: text("REPORTS", ""),
    /** Products on the shelf. */
    products: number("PRODUCTS", 50),
    /** How long unfinished orders may take to finish once the load has stopped, seconds. */
    settleSeconds: number("SETTLE_SECONDS", 60),
};
