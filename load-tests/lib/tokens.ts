// Bearer tokens: the one that was given, or one for each user, made with the secret that was given.

import { hmac } from "k6/crypto";
import encoding from "k6/encoding";
import { settings } from "./settings.ts";

export const ALL_SCOPES = "products:read products:write orders:read orders:write orders:admin";
export const CUSTOMER = "products:read orders:read orders:write";

const LIFETIME_SECONDS = 3600;

export interface Wanted {
    subject: string;
    scope: string;
    /** Whom it is for; the gateway unless said otherwise. */
    audience?: "palisade" | "products" | "orders";
    /** Seconds from now until it expires; negative for one that has. */
    lifetime?: number;
    secret?: string;
    issuer?: string;
}

function base64url(text: string): string {
    return encoding.b64encode(text, "rawurl");
}

/** A token of our own making (RFC 7519, HS256). */
export function mint(wanted: Wanted): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
        iss: wanted.issuer ?? settings.jwtIssuer,
        aud: wanted.audience ?? "palisade",
        sub: wanted.subject,
        scope: wanted.scope,
        iat: now - 60,
        exp: now + (wanted.lifetime ?? LIFETIME_SECONDS),
    };
    const signed = `${base64url(JSON.stringify({ alg: "HS256", typ: "JWT" }))}.${base64url(JSON.stringify(claims))}`;
    return `${signed}.${hmac("sha256", wanted.secret ?? settings.jwtSecret, signed, "base64rawurl")}`;
}

/** A token for this user, or the only one there is. */
export function token(subject: string, scope: string): string {
    if (settings.jwtSecret) return mint({ subject, scope });
    if (settings.token) return settings.token;
    throw new Error("set TOKEN (see `make token`), or JWT_SECRET and JWT_ISSUER");
}

/** A token that a gRPC service accepts itself. */
export function serviceToken(audience: "products" | "orders", scope: string): string {
    if (settings.jwtSecret) return mint({ subject: "load", scope, audience });
    const given = audience === "products" ? settings.productsToken : settings.ordersToken;
    if (given) return given;
    throw new Error("set PRODUCTS_TOKEN and ORDERS_TOKEN (`palisade token --audience …`), or JWT_SECRET and JWT_ISSUER");
}
