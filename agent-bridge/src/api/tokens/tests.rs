use std::os::unix::fs::PermissionsExt;

use super::*;

/// SHA-256 of `secret`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (dir, path)
}

#[test]
fn a_token_is_known_by_its_digest() {
    let (_dir, path) = written(&format!("# for people\n\nops write {SECRET}\n"));
    let tokens = Tokens::open(Some(&path)).unwrap();
    assert_eq!(tokens.holder("secret"), Some(Holder { name: "ops".into(), role: Role::Write }));
    assert_eq!(tokens.holder("secret "), None);
    assert_eq!(tokens.holder(SECRET), None);
    assert_eq!(tokens.holder(""), None);
    assert_eq!(Tokens::open(None).unwrap().holder("secret"), None);
}

#[test]
fn every_mistake_is_said_without_a_digest() {
    let (_dir, path) = written(&format!(
        "ops write\nops admin {SECRET}\nops read {}\nö read {SECRET}",
        "g".repeat(64)
    ));
    let error = Tokens::open(Some(&path)).unwrap_err();
    assert_eq!(error.0.len(), 4, "{error}");
    assert!(!error.to_string().contains(SECRET), "{error}");
}

#[test]
fn too_many_tokens_and_a_file_that_others_may_write_are_refused() {
    let (_dir, path) = written(&"#".repeat(usize::try_from(MAX_FILE).unwrap() + 1));
    assert!(
        Tokens::open(Some(&path))
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
    let (entries, mistakes) = parse(&format!("ops read {SECRET}\n").repeat(MAX_TOKENS + 9));
    assert_eq!((entries.len(), mistakes.len()), (MAX_TOKENS, 1));
    let (_dir, path) = written("");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(
        Tokens::open(Some(&path))
            .unwrap_err()
            .to_string()
            .contains("others may write")
    );
}

#[test]
fn a_changed_file_is_read_again_and_one_that_is_gone_gives_nothing() {
    let (_dir, path) = written(&format!("ops read {SECRET}"));
    let tokens = Tokens::open(Some(&path)).unwrap();
    let Tokens::File(file) = &tokens else { panic!("there is a file") };
    std::fs::write(&path, format!("nonsense\nops write {SECRET}")).unwrap();
    file.reload();
    assert_eq!(tokens.holder("secret").unwrap().role, Role::Write);
    std::fs::remove_file(&path).unwrap();
    file.reload();
    assert_eq!(tokens.holder("secret"), None);
    std::fs::write(&path, format!("ops read {SECRET}")).unwrap();
    file.reload();
    assert_eq!(tokens.holder("secret").unwrap().role, Role::Read);
}
