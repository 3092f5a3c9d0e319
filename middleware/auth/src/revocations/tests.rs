use super::*;

struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("palisade-revocations-{}", uuid::Uuid::new_v4())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn revoked(revocations: &RevocationFile, subject: &'static str) -> bool {
    revocations.is_revoked(&Principal::on_behalf_of(subject))
}

#[tokio::test(start_paused = true)]
async fn changed_file_reloaded_within_a_second() {
    let file = File::new("sub mallory\n");
    let revocations = RevocationFile::open(&file.0).unwrap();
    assert!(revoked(&revocations, "mallory"));
    file.write("sub mallory\nsub alice\n");
    assert!(!revoked(&revocations, "alice"), "checked at most once per second");
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "alice"));
    assert!(revoked(&revocations, "mallory"));
    // Replaced by a file of the same length.
    let other = File::new("sub mallory\nsub carol\n");
    fs::rename(&other.0, &file.0).unwrap();
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "carol"));
    assert!(!revoked(&revocations, "alice"));
}

#[tokio::test(start_paused = true)]
async fn missing_file_keeps_last_list() {
    let file = File::new("sub mallory\n");
    let revocations = RevocationFile::open(&file.0).unwrap();
    fs::remove_file(&file.0).unwrap();
    for _ in 0..3 {
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert!(revoked(&revocations, "mallory"));
    }
    file.write("sub alice\n");
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "alice"));
    file.write("sub bob\nnonsense\n");
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "bob"), "an invalid line does not disable the valid ones");
}

#[test]
fn open_rejects_invalid_file() {
    let file = File::new("sub alice\nalice\n");
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::Lines(_, lines)) if lines == [2]));
    file.write(&"#".repeat(1024 * 1024 + 1));
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::TooLarge(_))));
    fs::remove_file(&file.0).unwrap();
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::Unreadable(..))));
}

#[tokio::test]
async fn internal_token_of_revoked_subject_accepted() {
    let file = File::new("sub mallory\n");
    let revocations = RevocationFile::open(&file.0).unwrap();
    let mut principal = Principal::on_behalf_of("mallory");
    principal.actor = Some("orders".to_owned());
    assert!(!revocations.is_revoked(&principal));
}
