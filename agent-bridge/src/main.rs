//! outrider-agent-bridge: one per node.
#![forbid(unsafe_code)]

use std::pin::Pin;

use anyhow::Context;
use clap::{Parser, Subcommand};
use outrider_agent_bridge::{
    bridge::Bridge,
    help,
    settings::{self, Settings},
    webhook::{self, Terms, Webhook},
};
use outrider_telemetry::{LogFormat, init_log};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The node's end of Outrider.
#[derive(Debug, Parser)]
#[command(name = "outrider-agent-bridge", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Speak to every proxy of this node, sum what they report, learn, hand out policy
    #[command(after_help = help::bridge())]
    Bridge,
    /// Tell the API server which pods get the sidecar, and which may not start
    #[command(after_help = help::webhook())]
    Webhook,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().role {
        Role::Bridge => {
            let settings = Settings::read(|key| std::env::var(key).ok())?;
            begin("OUTRIDER_BRIDGE_LOG", &settings.log, &settings, settings::unknown(set()))?;
            until_ended(bridge(settings))
        }
        Role::Webhook => {
            let settings = webhook::settings::Settings::read(|key| std::env::var(key).ok())?;
            let unknown = webhook::settings::unknown(set());
            begin("OUTRIDER_WEBHOOK_LOG", &settings.log, &settings, unknown)?;
            until_ended(webhook(settings))
        }
    }
}

/// Names of the variables that are set.
fn set() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(key, _)| key.into_string().ok())
}

fn begin(
    key: &'static str,
    log: &str,
    settings: &dyn std::fmt::Debug,
    unknown: Vec<String>,
) -> anyhow::Result<()> {
    init_log(log, LogFormat::Json)
        .map_err(anyhow::Error::msg)
        .context(key)?;
    for name in unknown {
        tracing::warn!(name, "no such setting; see --help");
    }
    tracing::info!(?settings, "effective settings");
    Ok(())
}

fn until_ended(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(role);
    // Whoever does not read standard output any more must not keep us from ending.
    runtime.shutdown_background();
    ended
}

async fn bridge(settings: Settings) -> anyhow::Result<()> {
    let end = End::new()?;
    let bridge = Bridge::open(settings).await?;
    tracing::info!(api = %bridge.api_address()?, metrics = %bridge.metrics_address()?, "listening");
    let stop = CancellationToken::new();
    end.wait(Box::pin(bridge.run(stop.clone())), stop).await
}

async fn webhook(settings: webhook::settings::Settings) -> anyhow::Result<()> {
    let end = End::new()?;
    let webhook = Webhook::open(settings, Terms::default()).await?;
    let (address, metrics) = (webhook.address()?, webhook.metrics_address()?);
    tracing::info!(%address, %metrics, "listening");
    let stop = CancellationToken::new();
    end.wait(Box::pin(webhook.run(stop.clone())), stop).await
}

/// The signals that end a role.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> anyhow::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Runs until a signal comes, and then until what runs has put its things in order.
    async fn wait<E: std::error::Error + Send + Sync + 'static>(
        mut self,
        mut running: Pin<Box<impl Future<Output = Result<(), E>>>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            ended = &mut running => return ended.map_err(Into::into),
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        stop.cancel();
        running.await.map_err(Into::into)
    }
}
