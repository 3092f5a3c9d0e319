#!/bin/sh
# Makes what is missing: a key pair for each that signs tokens, the public halves in /keys/public.
set -eu
for name in gateway orders operator; do
    [ -f "/keys/$name/key.pem" ] || palisade keygen --out "/keys/$name/key.pem"
    palisade jwks "/keys/$name/key.pem" >"/keys/public/$name.json"
done
