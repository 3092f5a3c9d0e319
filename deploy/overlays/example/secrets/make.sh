#!/bin/sh
# Makes what is missing beside this script: a key pair for each that signs tokens, and the URLs of the stores from the environment.
set -eu
cd "$(dirname "$0")"
umask 077
for name in gateway orders operator; do
    [ -f "$name.pem" ] || palisade keygen --out "$name.pem"
    palisade jwks "$name.pem" >"$name.json"
done
[ -f products-store.url ] || printf '%s\n' "${PRODUCTS_STORE_URL:?mongodb://user:password@host:27017/products}" >products-store.url
[ -f orders-store.url ] || printf '%s\n' "${ORDERS_STORE_URL:?postgres://user:password@host:5432/orders}" >orders-store.url
