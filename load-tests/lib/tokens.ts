// Bearer tokens: a given token for all users, or one per user minted with a given secret.

import { hmac } from "k6/crypto";
import encoding from "k6/encoding";
import { settings } from "./settings.ts";

export const ALL_SCOPES = "products:read products:write orders:read orders:write orders:admin";
export const CUSTOMER = "products:read orders:read orders:write";

const LIFETIME_SECONDS = 3600;

export interface TokenOptions {
    subject: string;
    scope: string;
    /** Audience. Default: the gateway. */
    audience?: "palisade" | "products" | "orders";
    /** Seconds until expiry. Negative for an expired token. */
    lifetime?: number;
    secret?: string;
    issuer?: string;
}

function base64url(text: string): string {
    return encoding.b64encode(text, "rawurl");
}

/** Mints a token (RFC 7519, HS256). */
export function mint(options: TokenOptions): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
        iss: options.issuer ?? settings.jwtIssuer,
        aud: options.audience ?? "palisade",
        sub: options.subject,
        scope: options.scope,
        iat: now - 60,
        exp: now + (options.lifetime ?? LIFETIME_SECONDS),
    };
    const signed = `${base64url(JSON.stringify({ alg: "HS256", typ: "JWT" }))}.${base64url(JSON.stringify(claims))}`;
    return `${signed}.${hmac("sha256", options.secret ?? settings.jwtSecret, signed, "base64rawurl")}`;
}

/** Returns a token for this user, or the given token. */
export function token(subject: string, scope: string): string {
    if (settings.jwtSecret) return mint({ subject, scope });
    if (settings.token) return settings.token;
    throw new Error("set TOKEN (see `make token`), or JWT_SECRET and JWT_ISSUER");
}

/** Returns a token accepted by a gRPC service directly. */
export function serviceToken(audience: "products" | "orders", scope: string): string {
    if (settings.jwtSecret) return mint({ subject: "load", scope, audience });
    const given = audience === "products" ? settings.productsToken : settings.ordersToken;
    if (given) return given;
    throw new Error("set PRODUCTS_TOKEN and ORDERS_TOKEN (`palisade token --audience …`), or JWT_SECRET and JWT_ISSUER");
}
