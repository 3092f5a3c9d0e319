#!/bin/sh
# Generates missing signing keys, one per token issuer, and writes the public keys to /keys/public.
set -eu
for name in gateway orders operator; do
    [ -f "/keys/$name/key.pem" ] || palisade keygen --out "/keys/$name/key.pem"
    palisade jwks "/keys/$name/key.pem" >"/keys/public/$name.json"
done
