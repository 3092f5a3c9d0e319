// Settings from the environment. Scripts read them only here.

function text(name: string, fallback: string): string {
    return __ENV[name] || fallback;
}

/** Reads a non-negative number from the environment. */
export function number(name: string, fallback: number): number {
    const value = Number(text(name, String(fallback)));
    if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a non-negative number, got ${__ENV[name]}`);
    return value;
}

/** Reads a k6 duration, e.g. `30s`. */
export function duration(name: string, fallback: string): string {
    return text(name, fallback);
}

export const settings = {
    /** Gateway URL. */
    baseUrl: text("BASE_URL", "http://127.0.0.1:3000"),
    /** Addresses of the gRPC services, `host:port`. */
    productsGrpc: text("PRODUCTS_GRPC", "127.0.0.1:5000"),
    ordersGrpc: text("ORDERS_GRPC", "127.0.0.1:5001"),
    /** Admin ports with the invariant checks. */
    productsAdmin: text("PRODUCTS_ADMIN", "http://127.0.0.1:9465"),
    ordersAdmin: text("ORDERS_ADMIN", "http://127.0.0.1:9466"),
    /** Gateway token with all scopes, or secret and issuer to mint tokens (HS256). */
    token: text("TOKEN", ""),
    productsToken: text("PRODUCTS_TOKEN", ""),
    ordersToken: text("ORDERS_TOKEN", ""),
    jwtSecret: text("JWT_SECRET", ""),
    jwtIssuer: text("JWT_ISSUER", ""),
    /** Report directory. Empty writes no files. */
    reports: text("REPORTS", ""),
    /** Whether latency and dropped iterations can fail the run. Off on a machine with other work. */
    judgeLatency: text("JUDGE_LATENCY", "true") !== "false",
    /** Number of products. */
    products: number("PRODUCTS", 50),
    /** Maximum time for unfinished orders after the load, seconds. */
    settleSeconds: number("SETTLE_SECONDS", 60),
};
