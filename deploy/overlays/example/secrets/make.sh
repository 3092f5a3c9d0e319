#!/bin/sh
# Generates missing files in this folder: a signing key per token issuer, its public JWKS, and the
# store URLs from the environment.
set -eu
cd "$(dirname "$0")"
umask 077
for name in gateway orders operator; do
    [ -f "$name.pem" ] || palisade keygen --out "$name.pem"
    palisade jwks "$name.pem" >"$name.json"
done
[ -f products-store.url ] || printf '%s\n' "${PRODUCTS_STORE_URL:?mongodb://user:password@host:27017/products}" >products-store.url
[ -f orders-store.url ] || printf '%s\n' "${ORDERS_STORE_URL:?postgres://user:password@host:5432/orders}" >orders-store.url
