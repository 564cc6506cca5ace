//! Certificates: made and renewed under a stream of questions, given and replaced, and of no use.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use hyper::StatusCode;
use outrider_agent_bridge::webhook::{Terms, Webhook};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    apply::pod,
    world::{Connection, NAME, PATIENCE, World, given, read_pem, review, settings},
};

#[tokio::test]
async fn renewal_under_a_stream_of_questions_fails_none() {
    const SETTLE: Duration = Duration::from_secs(2);
    let terms = Terms {
        life: Duration::from_secs(3600),
        renew: Duration::from_millis(200),
        settle: SETTLE,
    };
    let world = World::own(terms).await;
    let question = review(&pod(json!({ "name": "app" }))).to_string();
    // One connection lives through all of it.
    let mut kept = Connection::open(world.address, &world.bundle())
        .await
        .unwrap();
    let (mut shown, mut asked) = (BTreeSet::new(), 0);
    let deadline = Instant::now() + PATIENCE * 2;
    while shown.len() < 4 {
        assert!(Instant::now() < deadline, "{} certificates", shown.len());
        let began = Instant::now();
        let bundle = world.bundle();
        assert!((1..=2).contains(&bundle.len()));
        match Connection::open(world.address, &bundle).await {
            Ok(mut connection) => {
                let answer = connection
                    .post("/inject/enforced", question.clone().into())
                    .await;
                assert_eq!(answer.unwrap().0, StatusCode::OK);
                shown.insert(connection.shown);
                asked += 1;
            }
            // Whoever holds on to an old bundle for longer than the settling time was not meant.
            Err(error) => assert!(began.elapsed() > SETTLE, "{error} after {:?}", began.elapsed()),
        }
        let (status, _) = kept
            .post("/inject/enforced", question.clone().into())
            .await
            .unwrap();
        assert_eq!(status, StatusCode::OK);
    }
    assert!(asked >= shown.len());
    world.end().await;
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_keeps_the_old_certificate() {
    let terms = Terms {
        life: Duration::from_secs(3600),
        renew: Duration::from_millis(50),
        settle: Duration::from_millis(50),
    };
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let mut settings = settings(dir.path());
    settings.bundle = Some(inside.join("bundle.pem"));
    let world = World::start(dir, settings, terms).await;
    // From here on nothing can be made known.
    fs::remove_dir_all(&inside).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut made = 0;
    loop {
        let now = world
            .count("outrider_webhook_certificate_loads_total{outcome=\"good\"}")
            .await;
        if now == made {
            break;
        }
        made = now;
        assert!(Instant::now() < deadline, "renewed {made} times");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.health("/healthz/ready").await.0, StatusCode::OK);
    world.end().await;
}

/// Writes a self-signed certificate; its own authority.
fn write(dir: &Path, name: &str, days: [i64; 2]) {
    let at = |days: i64| {
        let span = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        if days < 0 { SystemTime::now() - span } else { SystemTime::now() + span }
    };
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (at(days[0]).into(), at(days[1]).into());
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    for (file, text) in [("tls.key", key.serialize_pem()), ("tls.crt", made.pem())] {
        fs::write(dir.join(format!("{file}.new")), text).unwrap();
        fs::rename(dir.join(format!("{file}.new")), dir.join(file)).unwrap();
    }
}

async fn until_served(world: &World) {
    let shown = read_pem(&world.dir.path().join("tls.crt"));
    let deadline = Instant::now() + PATIENCE;
    while Connection::open(world.address, &shown).await.is_err() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_given_certificate_is_followed_and_half_a_renewal_is_not() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), NAME, [-1, 90]);
    let world = World::given(dir).await;
    let mut kept = {
        until_served(&world).await;
        Connection::open(world.address, &read_pem(&world.dir.path().join("tls.crt")))
            .await
            .unwrap()
    };
    let old = fs::read(world.dir.path().join("tls.key")).unwrap();
    write(world.dir.path(), NAME, [-1, 80]);
    until_served(&world).await;
    // A key of another certificate: what was served goes on.
    let good = read_pem(&world.dir.path().join("tls.crt"));
    fs::write(world.dir.path().join("tls.key"), old).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let unusable = "outrider_webhook_certificate_loads_total{outcome=\"unusable\"}";
    while world.count(unusable).await == 0 {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(100)).await;
    }
    Connection::open(world.address, &good).await.unwrap();
    write(world.dir.path(), NAME, [-1, 70]);
    until_served(&world).await;
    let question = review(&pod(json!({ "name": "app" }))).to_string();
    assert_eq!(kept.post("/inject", question.into()).await.unwrap().0, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn what_is_of_no_use_is_said_and_mended_by_the_next() {
    for (name, days, said) in [
        (NAME, [-10, -2], "it expired 2 days ago"),
        (NAME, [2, 10], "it is not valid before"),
        ("other.example", [-1, 10], "it is not for outrider-webhook.outrider.svc"),
    ] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), name, days);
        let world = World::given(dir).await;
        let (status, text) = world.health("/healthz/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains(said), "{text}");
        assert_eq!(world.health("/healthz/live").await.0, StatusCode::OK);
        write(world.dir.path(), NAME, [-1, 10]);
        until_served(&world).await;
        assert_eq!(world.health("/healthz/ready").await.0, StatusCode::OK);
        world.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_at_the_start() {
    let refused = async |spoil: &dyn Fn(&Path)| {
        let dir = TempDir::new().unwrap();
        write(dir.path(), NAME, [-1, 10]);
        spoil(dir.path());
        let mut settings = settings(dir.path());
        settings.given = Some(given(dir.path()));
        Webhook::open(settings, Terms::default())
            .await
            .unwrap_err()
            .to_string()
    };
    let gone = refused(&|dir| fs::remove_file(dir.join("tls.key")).unwrap()).await;
    assert!(gone.contains("tls.key") && gone.contains("No such file"), "{gone}");
    let empty = refused(&|dir| fs::write(dir.join("tls.crt"), "").unwrap()).await;
    assert!(empty.contains("tls.crt: no certificate in it"), "{empty}");
    let foreign = refused(&|dir| {
        let other = KeyPair::generate().unwrap().serialize_pem();
        fs::write(dir.join("tls.key"), other).unwrap();
    })
    .await;
    assert!(
        foreign.contains("tls.crt") && foreign.contains("the key is of another certificate"),
        "{foreign}"
    );
    let spoilt = refused(&|dir| {
        let text = fs::read_to_string(dir.join("tls.crt")).unwrap();
        fs::write(dir.join("tls.crt"), text.replace("MII", "MIJ")).unwrap();
    })
    .await;
    assert!(spoilt.contains("tls.crt"), "{spoilt}");
}
