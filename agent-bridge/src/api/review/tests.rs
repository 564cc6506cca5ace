use super::*;

fn reviewed(json: &str) -> Reviewing {
    serde_json::from_str::<Answered<Reviewing>>(json)
        .unwrap()
        .status
}

#[test]
fn a_token_must_be_somebodys_and_meant_for_us() {
    let for_us = r#"{"kind":"TokenReview","status":{"authenticated":true,"audiences":["outrider.dev"],
        "user":{"username":"ops","uid":"1","groups":["a"],"extra":{"k":["v"]}}}}"#;
    assert_eq!(
        reviewed(for_us)
            .known(Some("outrider.dev"))
            .unwrap()
            .username,
        "ops"
    );
    assert!(reviewed(for_us).known(Some("other")).is_none());
    for nobody in [
        r#"{"status":{"authenticated":true,"user":{"username":"ops"}}}"#,
        r#"{"status":{"authenticated":true,"audiences":["outrider.dev"]}}"#,
        r#"{"status":{"user":{"username":"ops"},"audiences":["outrider.dev"]}}"#,
        r#"{"status":{"error":"expired"}}"#,
    ] {
        assert!(reviewed(nobody).known(Some("outrider.dev")).is_none(), "{nobody}");
    }
}

#[test]
fn what_is_known_of_an_account_is_asked_about_as_it_came() {
    let user = reviewed(
        r#"{"status":{"user":{"username":"ops","uid":"1","groups":["a"],"extra":{"k":["v"]}}}}"#,
    )
    .user;
    let asked = user.asks(&json!({ "verb": "get" }));
    let wanted = json!({"user":"ops","uid":"1","groups":["a"],"extra":{"k":["v"]},
        "resourceAttributes":{"verb":"get"}});
    assert_eq!(asked, wanted);
}
