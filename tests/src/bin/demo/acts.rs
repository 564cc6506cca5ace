//! The acts: Discover, Protect, a threat, the figures.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{
    Scene,
    cli::Conversation,
    exchange::{End, exchange},
    until,
};

use crate::{
    narrate::Story,
    traffic::{Background, Sent, inbound, ordinary, refused},
};

/// Reports leave a proxy every 6 s and are summed by the bridge at once.
const REPORTED: Duration = Duration::from_secs(15);
/// A refusal comes at once; a time-out would take far longer.
const REFUSED: Duration = Duration::from_secs(2);

/// All acts, one after another.
pub(crate) fn play(story: &mut Story, scene: &Scene) -> Result<()> {
    let mut sent = discover(story, scene)?;
    protect(story, scene, &mut sent)?;
    threat(story, scene, &mut sent)?;
    figures(story, scene, sent);
    Ok(())
}

fn discover(story: &mut Story, scene: &Scene) -> Result<Sent> {
    story.section("Discover: traffic flows, nothing is blocked, everything is learned");
    let sent = ordinary(scene)?;
    story.say(format_args!(
        "shop made {} HTTP, {} HTTPS and {} redis connections, all answered",
        sent.http, sent.tls, sent.redis
    ));
    let learned = until("the reports", REPORTED, || {
        let seen = scene.node.conversations()?;
        let http = sessions(&seen, "default/shop", "default/web", &["HTTP", "nginx"], sent.http)?;
        let tls = sessions(&seen, "default/shop", "default/web", &["SSL"], sent.tls)?;
        let redis = sessions(&seen, "default/shop", "default/cache", &["Redis"], sent.redis)?;
        Ok(format!("{http} HTTP, {tls} TLS and {redis} redis sessions"))
    });
    story.shows("outrider conversations", &scene.node.cli(&["conversations"])?);
    story.states("conversations are exactly what was sent", learned);
    let rules = until("the rules", REPORTED, || {
        let rules = scene.node.rules()?;
        for (to, apps, ports) in [
            ("nv.web.default", &["HTTP", "nginx"][..], "tcp/80"),
            ("nv.web.default", &["SSL"][..], "tcp/443"),
            ("nv.cache.default", &["Redis"][..], "tcp/6379"),
        ] {
            rules
                .iter()
                .find(|rule| {
                    rule.from == "nv.shop.default"
                        && (rule.to.as_str(), rule.ports.as_str()) == (to, ports)
                        && apps.contains(&rule.app.as_str())
                })
                .with_context(|| format!("no rule to {to} {apps:?} {ports} among {rules:?}"))?;
        }
        let stray = rules.iter().find(|rule| rule.from.contains("intruder"));
        ensure!(stray.is_none(), "a rule for the intruder: {stray:?}");
        Ok(format!("{} rules, from shop to web (HTTP, TLS) and to cache (redis)", rules.len()))
    });
    story.shows("outrider rules", &scene.node.cli(&["rules"])?);
    story.states("each has become a rule with its application and evidence", rules);
    Ok(sent)
}

/// The sessions between two workloads in one application; fails unless they are as many as were made.
fn sessions(
    seen: &[Conversation],
    client: &str,
    server: &str,
    apps: &[&str],
    expected: u64,
) -> Result<u64> {
    let of = seen
        .iter()
        .filter(|row| row.client == client && row.server == server);
    let sum = of
        .filter(|row| apps.contains(&row.app.as_str()))
        .map(|row| row.sessions)
        .sum();
    ensure!(sum == expected, "{client} to {server} {apps:?}: {sum} sessions, {expected} were made");
    Ok(sum)
}

fn protect(story: &mut Story, scene: &Scene, sent: &mut Sent) -> Result<()> {
    story.section("Protect: cache now accepts what was learned, and nothing else");
    let shop = Background::start(scene)?;
    story.say("shop keeps calling web and cache while the mode changes");
    let output = scene.node.set_mode("cache", "protect")?;
    story.shows("outrider mode set cache protect", &output);
    intrude(story, scene)?;
    let after = shop
        .goes_on()
        .and_then(|()| shop.finish())
        .map(|background| {
            sent.http += background.http;
            sent.redis += background.redis;
            format!("{} redis and {} HTTP requests", background.redis, background.http)
        });
    story.states("shop's traffic went on without a failed request", after);
    let found = until("the violation", REPORTED, || {
        let rows = scene.node.violations()?;
        let mine = |ip| {
            rows.iter()
                .filter(move |row| row.client_ip == ip && row.port == 6379)
        };
        let addresses = &scene.intruder.addresses;
        let (v4, v6) = (addresses.v4.to_string(), addresses.v6.to_string());
        let first = mine(v4.clone())
            .next()
            .with_context(|| format!("none among {rows:?}"))?;
        ensure!(first.action == "deny" && !first.reason.is_empty(), "{first:?}");
        let count: u64 = [v4, v6]
            .into_iter()
            .flat_map(mine)
            .map(|row| row.count)
            .sum();
        // redis-cli tries once more when its connection is reset under its hands: the proxy knows.
        let refused = refused(&scene.cache)?;
        ensure!(count == refused && count >= 3, "{count} counted, {refused} were refused");
        Ok(format!("rule {}, {:?}, count {count}", first.rule, first.reason))
    });
    story.shows("outrider violations", &scene.node.cli(&["violations"])?);
    story.states("the intruder shows as a violation with rule, reason and count", found);
    Ok(())
}

/// The intruder's three tries: by redis-cli, then raw over both families.
fn intrude(story: &mut Story, scene: &Scene) -> Result<()> {
    let cache = scene.cache.at(false, 6379);
    let answer = scene.intruder.redis_cli(cache, &["ping"]);
    let text = match &answer {
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("{error:#}")
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned(),
    };
    story.shows(&format!("redis-cli -h {} ping   # in intruder", cache.ip()), &text);
    for v6 in [false, true] {
        let server = scene.cache.at(v6, 6379);
        let seen = exchange(&scene.intruder.netns, server, b"PING\r\n", REFUSED)?;
        let refused = matches!(seen.end, End::Reset | End::Refused) && seen.received.is_empty();
        let outcome = if refused && answer.is_err() {
            Ok(format!("{:?} after {} ms", seen.end, seen.took.as_millis()))
        } else {
            Err(anyhow::anyhow!("{:?}, received {:?}", seen.end, seen.received))
        };
        let family = if v6 { "IPv6" } else { "IPv4" };
        story.states(
            &format!("the intruder is refused by RST, not by a time-out ({family})"),
            outcome,
        );
    }
    Ok(())
}

fn threat(story: &mut Story, scene: &Scene, sent: &mut Sent) -> Result<()> {
    story.section("A threat: one request framed in two ways, sent by curl to web in Discover");
    let url = format!("http://{}/", scene.web.at(false, 80));
    let header = |value| ["--header", value];
    let framings = [header("Transfer-Encoding: chunked"), header("Content-Length: 5")].concat();
    let command = [&["--data-binary", "0\r\n\r\n", &url][..], &framings].concat();
    let mut code = -1;
    scene.reported_by_both(&scene.web, || {
        code = scene.shop.curl(&command)?.code;
        Ok(())
    })?;
    sent.http += 1;
    story.say(format_args!("curl ended with {code}: Discover reports and blocks nothing"));
    let found = until("the threat", REPORTED, || {
        let threats = scene.node.threats()?;
        let [threat] = &threats[..] else { anyhow::bail!("{} threats", threats.len()) };
        ensure!(threat.workload == "default/web" && threat.count == 1, "{threat:?}");
        ensure!(threat.id == 2014 && threat.action == "alert", "{threat:?}");
        ensure!(!threat.evidence.is_empty(), "no evidence: {threat:?}");
        Ok(format!("{} ({}), {}", threat.name, threat.severity, threat.message))
    });
    story.shows("outrider threats", &scene.node.cli(&["threats"])?);
    story.states("it is reported once, with the bytes that show it", found);
    Ok(())
}

/// What the pods and the node count is what was sent.
fn figures(story: &mut Story, scene: &Scene, sent: Sent) {
    story.section("Figures: /metrics of the pods and of the node agree with what was sent");
    let web = inbound(&scene.web).and_then(|opened| {
        ensure!(opened == sent.web(), "{opened} flows counted, {} were sent", sent.web());
        Ok(format!("{opened} flows"))
    });
    story.states("web's proxy took in as many flows as shop sent to it", web);
    let cache = inbound(&scene.cache).and_then(|opened| {
        ensure!(opened == sent.redis, "{opened} flows counted, {} were sent", sent.redis);
        Ok(format!("{opened} flows, the refused ones apart"))
    });
    story.states("cache's proxy took in as many flows as shop sent to it", cache);
    let node = until("the node's sum", REPORTED, || {
        let metrics = scene.node.metrics()?;
        let sessions = metrics.sum("outrider_bridge_sessions_total", &[]);
        let expected = sent.web() + sent.redis;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let agree = sessions == expected as f64;
        ensure!(agree, "{sessions} sessions counted, {expected} were sent");
        Ok(format!("{sessions} sessions"))
    });
    story.states("the node's sum of sessions is the same", node);
}
