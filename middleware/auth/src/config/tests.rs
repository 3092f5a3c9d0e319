use super::*;
use crate::{UserToken, mint_user_token};
use palisade_resilience::{clock::SystemClock, rejection::reasons};

/// Temporary file with the given text; removed on drop.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("palisade-auth-{}", uuid::Uuid::new_v4()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn config(issuer: IssuerConfig) -> Config {
    Config { issuers: BTreeMap::from([("idp".to_owned(), issuer)]), revocations_file: None }
}

fn unreachable_jwks(_: &str, _: &Url) -> Result<Box<dyn crate::jwks::FetchJwks>, BoxError> {
    Err("no network in this test".into())
}

fn error(config: &Config) -> String {
    config.verifier("shop", Arc::new(SystemClock), unreachable_jwks).unwrap_err().to_string()
}

#[test]
fn config_error_names_setting() {
    assert!(error(&Config::default()).starts_with("auth.issuers is empty"));
    let missing = || Some(PathBuf::from("/nowhere/at/all"));
    let short = IssuerConfig { secret: Some("short".into()), ..IssuerConfig::default() };
    let two = IssuerConfig { jwks_url: Some("http://id.example/keys".to_owned()), ..short.clone() };
    for issuer in [IssuerConfig::default(), two] {
        assert!(error(&config(issuer)).contains("auth.issuers.idp: exactly one of"));
    }
    assert_eq!(error(&config(short)), "auth.issuers.idp: the shared secret has 5 bytes, at least 32 are required");
    for (issuer, text) in [
        (IssuerConfig { jwks_file: missing(), ..IssuerConfig::default() }, "auth.issuers.idp: cannot read /nowhere/at/all"),
        (IssuerConfig { public_key_file: missing(), ..IssuerConfig::default() }, "auth.issuers.idp.algorithm is required"),
        (IssuerConfig { jwks_url: Some("file:///keys".to_owned()), ..IssuerConfig::default() }, "auth.issuers.idp.jwks_url is not"),
    ] {
        assert!(error(&config(issuer)).starts_with(text), "{text}");
    }
    let secret = IssuerConfig { secret: Some("x".repeat(32).into()), ..IssuerConfig::default() };
    let revoking = Config { revocations_file: missing(), ..config(secret) };
    assert_eq!(error(&revoking), "auth.revocations_file: cannot read /nowhere/at/all");
}

#[tokio::test]
async fn config_loads_jwks_and_revocation_files() {
    let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let keys = File::new(&serde_json::to_string(&key.public_jwks()).unwrap());
    let revoked = File::new("sub mallory\n");
    let config = Config {
        revocations_file: Some(revoked.0.clone()),
        ..config(IssuerConfig { jwks_file: Some(keys.0.clone()), ..IssuerConfig::default() })
    };
    let verifier = Arc::new(config.verifier("shop", Arc::new(SystemClock), unreachable_jwks).unwrap());
    let token = |subject: &str| {
        let token = UserToken {
            subject: subject.to_owned(),
            scope: String::new(),
            issuer: "idp".to_owned(),
            audience: "shop".to_owned(),
            lifetime: std::time::Duration::from_mins(1),
        };
        mint_user_token(&token, &key, SystemClock.now().unix_timestamp()).unwrap()
    };
    assert_eq!(verifier.verify(&token("alice")).await.unwrap().subject, "alice");
    let refused = verifier.verify(&token("mallory")).await.unwrap_err();
    assert_eq!((refused.reason(), refused.detail()), (&reasons::UNAUTHENTICATED, "the token is revoked"));
}
