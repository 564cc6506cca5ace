//! outrider-agent-bridge: one per node.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Parser, Subcommand};
use outrider_agent_bridge::{
    bridge::Bridge,
    help,
    settings::{self, Settings},
};
use outrider_telemetry::{LogFormat, init_log};
use tokio::signal::unix::{SignalKind, signal};
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
}

fn main() -> anyhow::Result<()> {
    let Role::Bridge = Args::parse().role;
    let settings = Settings::read(|key| std::env::var(key).ok())?;
    init_log(&settings.log, LogFormat::Json)
        .map_err(anyhow::Error::msg)
        .context("OUTRIDER_BRIDGE_LOG")?;
    for name in settings::unknown(std::env::vars_os().filter_map(|(key, _)| key.into_string().ok()))
    {
        tracing::warn!(name, "no such setting; see --help");
    }
    tracing::info!(?settings, "effective settings");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(settings));
    // Whoever does not read standard output any more must not keep us from ending.
    runtime.shutdown_background();
    ended
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let bridge = Bridge::open(settings).await?;
    tracing::info!(api = %bridge.api_address()?, metrics = %bridge.metrics_address()?, "listening");
    let stop = CancellationToken::new();
    let running = bridge.run(stop.clone());
    tokio::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended.map_err(Into::into),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    running.await.map_err(Into::into)
}
