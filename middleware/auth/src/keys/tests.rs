use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use jsonwebtoken::{Header, Validation};
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

fn ec() -> EncodingKey {
    install_crypto();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    EncodingKey::from_ec_pem(pem("PRIVATE KEY", document.as_ref()).as_bytes()).unwrap()
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, changes: &Value) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
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

/// Returns whether `key` verifies a token of `signer` with `algorithm`, with the settings of the
/// verifier.
fn verifies(key: &TrustedKey, signer: &EncodingKey, algorithm: Algorithm) -> bool {
    let Ok(token) = jsonwebtoken::encode(&Header::new(algorithm), &json!({}), signer) else { return false };
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    jsonwebtoken::decode::<Value>(token, &key.decoding, &validation).is_ok()
}

#[test]
fn pem_key_verifies_only_its_algorithm() {
    let (signer, public) = rsa();
    // Algorithm confusion: the public key used as an HMAC secret.
    let forger = EncodingKey::from_secret(public.as_bytes());
    for algorithm in [Algorithm::RS256, Algorithm::PS256] {
        let key = TrustedKey::from_pem(public.as_bytes(), algorithm).unwrap();
        for other in [Algorithm::RS256, Algorithm::RS384, Algorithm::PS256, Algorithm::PS512] {
            assert_eq!(verifies(&key, &signer, other), other == algorithm, "{algorithm:?} {other:?}");
        }
        for other in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(!verifies(&key, &forger, other), "{algorithm:?} {other:?}");
        }
    }
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        assert!(matches!(TrustedKey::from_pem(public.as_bytes(), algorithm), Err(KeyError::Unusable(..))), "{algorithm:?}");
    }
}

#[test]
fn jwk_type_determines_algorithm() {
    let ((rsa, _), ec, ed) = (rsa(), ec(), SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap().encoding);
    let undeclared = json!({"alg": null, "use": null});
    for (signer, algorithm) in [(&rsa, Algorithm::RS256), (&ec, Algorithm::ES256), (&ed, Algorithm::EdDSA)] {
        let [key] = read(&[jwk(signer, algorithm, &undeclared)]).unwrap().try_into().unwrap();
        assert_eq!(key.algorithm, algorithm, "the type implies the algorithm");
        assert!(verifies(&key, signer, algorithm));
    }
    let [key] = read(&[jwk(&rsa, Algorithm::PS256, &json!({"alg": "PS256"}))]).unwrap().try_into().unwrap();
    assert!(verifies(&key, &rsa, Algorithm::PS256) && !verifies(&key, &rsa, Algorithm::RS256));
}

#[test]
fn jwks_skips_unsupported_keys() {
    let ((rsa, _), ec) = (rsa(), ec());
    let foreign = [
        json!({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "oct", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
        jwk(&rsa, Algorithm::RS256, &json!({"alg": "RS512"})),
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
