use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair},
};
use serde_json::{Value, json};

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Generates an RSA key; returns it with its public key in PEM.
fn rsa() -> (EncodingKey, String) {
    install_crypto();
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let public = pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref());
    let private = pem("PRIVATE KEY", AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
    (EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(), public)
}

/// Generates an EC key; returns it with its public key in PEM.
fn ec(curve: &'static EcdsaSigningAlgorithm) -> (EncodingKey, String) {
    install_crypto();
    let document = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(curve, document.as_ref()).unwrap();
    let public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let private = pem("PRIVATE KEY", document.as_ref());
    (EncodingKey::from_ec_pem(private.as_bytes()).unwrap(), pem("PUBLIC KEY", public.as_ref()))
}

fn p256() -> (EncodingKey, String) {
    ec(&ECDSA_P256_SHA256_FIXED_SIGNING)
}

fn p384() -> (EncodingKey, String) {
    ec(&ECDSA_P384_SHA384_FIXED_SIGNING)
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, changes: &Value) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm.library()).unwrap()).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        } else {
            jwk[name] = value.clone();
        }
    }
    jwk
}

fn read(keys: &[Value]) -> Result<Vec<TrustedKey>, KeyError> {
    TrustedKey::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
}

/// Returns whether `key` accepts a token of `signer` with `algorithm`.
fn verifies(key: &TrustedKey, signer: &EncodingKey, algorithm: Algorithm) -> bool {
    const MESSAGE: &str = "e30.e30";
    let Ok(signature) = jsonwebtoken::crypto::sign(MESSAGE.as_bytes(), signer, algorithm.library()) else { return false };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&signature).unwrap().len();
    assert!(algorithm.has_signature_length(bytes), "{algorithm:?} {bytes}");
    key.accepts(algorithm) && key.verifies(MESSAGE, &signature).unwrap_or(false)
}

const RSA: [Algorithm; 6] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

#[test]
fn pem_key_verifies_only_its_algorithm() {
    let (signer, public) = rsa();
    // Algorithm confusion: the public key used as an HMAC secret.
    let forger = EncodingKey::from_secret(public.as_bytes());
    for algorithm in RSA {
        let key = TrustedKey::from_pem(public.as_bytes(), algorithm).unwrap();
        for other in RSA {
            assert_eq!(verifies(&key, &signer, other), other == algorithm, "{algorithm:?} {other:?}");
        }
        assert!(!verifies(&key, &forger, Algorithm::HS256), "{algorithm:?}");
    }
    let ((p256, public_256), (p384, public_384)) = (p256(), p384());
    for (algorithm, signer, own, other) in
        [(Algorithm::ES256, &p256, &public_256, &public_384), (Algorithm::ES384, &p384, &public_384, &public_256)]
    {
        assert!(verifies(&TrustedKey::from_pem(own.as_bytes(), algorithm).unwrap(), signer, algorithm));
        assert!(matches!(TrustedKey::from_pem(other.as_bytes(), algorithm), Err(KeyError::Curve(_))), "{algorithm:?}");
    }
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::Ed25519] {
        assert!(matches!(TrustedKey::from_pem(public.as_bytes(), algorithm), Err(KeyError::Unusable(..))), "{algorithm:?}");
    }
}

#[test]
fn jwk_type_determines_algorithm() {
    let ((rsa, _), (p256, _), (p384, _)) = (rsa(), p256(), p384());
    let ed = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap().encoding;
    let undeclared = json!({"alg": null, "use": null});
    let implied = [
        (&rsa, Algorithm::RS256, &[Algorithm::RS256][..]),
        (&p256, Algorithm::ES256, &[Algorithm::ES256]),
        (&p384, Algorithm::ES384, &[Algorithm::ES384]),
        (&ed, Algorithm::EdDSA, &[Algorithm::EdDSA, Algorithm::Ed25519]),
    ];
    for (signer, algorithm, accepted) in implied {
        let [key] = read(&[jwk(signer, algorithm, &undeclared)]).unwrap().try_into().unwrap();
        assert_eq!(key.algorithms, accepted, "the type implies the algorithm");
        assert!(accepted.iter().all(|algorithm| verifies(&key, signer, *algorithm)));
    }
    let declared = RSA.map(|algorithm| (&rsa, algorithm)).into_iter().chain([
        (&p256, Algorithm::ES256),
        (&p384, Algorithm::ES384),
        (&ed, Algorithm::EdDSA),
        (&ed, Algorithm::Ed25519),
    ]);
    for (signer, algorithm) in declared {
        let [key] = read(&[jwk(signer, algorithm, &json!({"alg": algorithm}))]).unwrap().try_into().unwrap();
        assert_eq!(key.algorithms, [algorithm], "the key pins its algorithm");
        assert!(verifies(&key, signer, algorithm), "{algorithm:?}");
    }
}

#[test]
fn jwks_skips_unsupported_keys() {
    let ((rsa, _), (ec, _), (p384, _)) = (rsa(), p256(), p384());
    let foreign = [
        json!({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "oct", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
        jwk(&rsa, Algorithm::RS256, &json!({"alg": "RSA-OAEP"})),
        jwk(&rsa, Algorithm::RS256, &json!({"alg": "Ed25519"})),
        jwk(&p384, Algorithm::ES384, &json!({"alg": "ES256"})),
        jwk(&rsa, Algorithm::RS256, &json!({"alg": "HS256"})),
        jwk(&rsa, Algorithm::RS256, &json!({"alg": "EdDSA"})),
        jwk(&rsa, Algorithm::RS256, &json!({"use": "enc"})),
        jwk(&ec, Algorithm::ES256, &json!({"alg": "ES384"})),
    ];
    for key in &foreign {
        assert!(matches!(read(std::slice::from_ref(key)), Err(KeyError::Untrusted(_))), "{key}");
    }
    let set = [&foreign[..], &[jwk(&ec, Algorithm::ES256, &json!({"kid": "ours"}))]].concat();
    let [key] = read(&set).unwrap().try_into().unwrap();
    assert_eq!(key.id.as_deref(), Some("ours"));
}

#[test]
fn secret_requires_32_bytes() {
    assert!(matches!(TrustedKey::from_secret(&"x".repeat(31).into()), Err(KeyError::ShortSecret(31))));
    assert!(TrustedKey::from_secret(&"x".repeat(32).into()).is_ok());
}
