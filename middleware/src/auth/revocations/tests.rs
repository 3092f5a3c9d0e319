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

fn revoked(revocations: &RevocationFile, subject: &str) -> bool {
    revocations.is_revoked(&Principal::on_behalf_of(subject))
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_heeded_within_a_second() {
    let file = File::new("sub mallory\n");
    let revocations = RevocationFile::open(&file.0).unwrap();
    assert!(revoked(&revocations, "mallory"));
    file.write("sub mallory\nsub alice\n");
    assert!(!revoked(&revocations, "alice"), "not looked at for every request");
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "alice"));
    assert!(revoked(&revocations, "mallory"));
    // A new file of the same length, in its place.
    let other = File::new("sub mallory\nsub carol\n");
    fs::rename(&other.0, &file.0).unwrap();
    tokio::time::advance(RELOAD_INTERVAL).await;
    assert!(revoked(&revocations, "carol"));
    assert!(!revoked(&revocations, "alice"));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_list_stays_while_the_file_is_gone() {
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
    assert!(revoked(&revocations, "bob"), "a slip of the pen does not bring anybody back");
}

#[test]
fn a_file_that_cannot_be_used_is_told_at_the_start() {
    let file = File::new("sub alice\nalice\n");
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::Lines(_, lines)) if lines == [2]));
    file.write(&"#".repeat(1024 * 1024 + 1));
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::TooLarge(_))));
    fs::remove_file(&file.0).unwrap();
    assert!(matches!(RevocationFile::open(&file.0), Err(RevocationError::Unreadable(..))));
}

#[tokio::test]
async fn work_that_a_service_does_for_a_revoked_subject_goes_on() {
    let file = File::new("sub mallory\n");
    let revocations = RevocationFile::open(&file.0).unwrap();
    let mut principal = Principal::on_behalf_of("mallory");
    principal.actor = Some("orders".to_owned());
    assert!(!revocations.is_revoked(&principal));
}
