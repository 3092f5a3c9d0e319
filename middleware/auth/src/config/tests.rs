use super::*;
use crate::{UserToken, mint_user_token};
use palisade_resilience::{clock::SystemClock, rejection::reasons};
use tower::BoxError;

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
    assert!(error(&Config::default()).starts_with("auth.issuers: at least one"));
    let missing = || Some(PathBuf::from("/nowhere/at/all"));
    let short = IssuerConfig { secret: Some("short".into()), ..IssuerConfig::default() };
    let two = IssuerConfig { jwks_url: Some("http://id.example/keys".into()), ..short.clone() };
    for issuer in [IssuerConfig::default(), two] {
        assert!(error(&config(issuer)).contains("auth.issuers.idp: exactly one of"));
    }
    assert_eq!(error(&config(short)), "auth.issuers.idp.secret: the shared secret has 5 bytes, at least 32 are required");
    for (issuer, text) in [
        (IssuerConfig { jwks_file: missing(), ..IssuerConfig::default() }, "auth.issuers.idp.jwks_file: cannot read /nowhere/at/all"),
        (IssuerConfig { public_key_file: missing(), ..IssuerConfig::default() }, "auth.issuers.idp.algorithm: is required"),
        (IssuerConfig { jwks_url: Some("file:///keys".into()), ..IssuerConfig::default() }, "auth.issuers.idp.jwks_url: must be"),
        (IssuerConfig { jwks_url: Some("me:hunter2@".into()), ..IssuerConfig::default() }, "auth.issuers.idp.jwks_url: must be"),
        (
            IssuerConfig { algorithm: Some(Algorithm::ES256), ..secret() },
            "auth.issuers.idp.algorithm: has no effect without public_key_file",
        ),
        (
            IssuerConfig { algorithm: Some(Algorithm::HS256), public_key_file: missing(), ..IssuerConfig::default() },
            "auth.issuers.idp.algorithm: HS256",
        ),
        (IssuerConfig { internal: true, subject_prefix: "a:".into(), ..secret() }, "auth.issuers.idp.subject_prefix: has no effect"),
        (IssuerConfig { internal: true, typ_optional: true, ..secret() }, "auth.issuers.idp.typ_optional: has no effect"),
        (IssuerConfig { internal: true, scope_as_array: true, ..secret() }, "auth.issuers.idp.scope_as_array: has no effect"),
    ] {
        let error = error(&config(issuer));
        assert!(error.starts_with(text) && !error.contains("hunter2"), "{text}: {error}");
    }
    let revoking = Config { revocations_file: missing(), ..config(secret()) };
    assert!(error(&revoking).starts_with("auth.revocations_file: cannot read /nowhere/at/all"));
}

fn secret() -> IssuerConfig {
    IssuerConfig { secret: Some("x".repeat(32).into()), ..IssuerConfig::default() }
}

#[test]
fn config_reports_all_violations() {
    let missing = |name: &str| Some(PathBuf::from(format!("/nowhere/{name}")));
    let issuers = [
        ("a", IssuerConfig { secret: Some("short".into()), ..IssuerConfig::default() }),
        ("b", IssuerConfig { jwks_file: missing("b"), subject_prefix: "b:".to_owned(), ..IssuerConfig::default() }),
        ("c", IssuerConfig::default()),
        ("d", IssuerConfig { issuer: Some("a".to_owned()), ..secret() }),
    ];
    let issuers = issuers.into_iter().map(|(name, issuer)| (name.to_owned(), issuer)).collect();
    let config = Config { issuers, revocations_file: missing("revoked") };
    let keys = |all: Vec<Invalid>| all.into_iter().map(|invalid| invalid.key.into_owned()).collect::<Vec<_>>();
    assert_eq!(keys(config.validate()), ["auth.issuers.c", "auth.issuers.c.subject_prefix"]);
    assert_eq!(keys(config.check()), ["auth.issuers.a.secret", "auth.issuers.b.jwks_file", "auth.revocations_file"]);
}

#[test]
fn issuer_setting_selects_rules() {
    let issuer = IssuerConfig {
        subject_prefix: "partner:".to_owned(),
        allowed_scopes: Some("products:read  orders:read".to_owned()),
        typ_optional: true,
        scope_as_array: true,
        ..secret()
    };
    let [issuer] = config(issuer).issuers("shop", unreachable_jwks).unwrap().try_into().unwrap();
    let expected = Rules {
        key: Some("idp".to_owned()),
        subject_prefix: "partner:".to_owned(),
        allowed_scopes: Some(["products:read".to_owned(), "orders:read".to_owned()].into()),
        typ_optional: true,
        scope_as_array: true,
    };
    assert_eq!(issuer.rules, expected);
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
