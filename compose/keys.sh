#!/bin/sh
# Generates missing signing keys, one per token issuer, and writes the public keys to /keys/public
# and the token of the probe to /keys/probe.
set -eu
for name in gateway orders operator; do
    [ -f "/keys/$name/key.pem" ] || palisade keygen --out "/keys/$name/key.pem"
    palisade jwks "/keys/$name/key.pem" >"/keys/public/$name.json"
done
# A year, for the synthetic reads of the blackbox exporter.
palisade token --key-file /keys/operator/key.pem --issuer operator --sub probe --scope products:read \
    --expires-in 31536000 >/keys/probe/token
