//! outrider-agent-bridge: one per node.
#![forbid(unsafe_code)]

use std::io::Write as _;

use anyhow::Context;
use clap::{Parser, Subcommand};
use outrider_agent_bridge::{
    bridge::Bridge,
    cluster::objects,
    controller::{self, Controller},
    help,
    process::{self, End},
    settings::{self, Settings},
    webhook::{self, Terms, Webhook},
};
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
    /// Compile what people write as objects to what each node needs, merge what the nodes see
    #[command(after_help = help::controller())]
    Controller,
    /// Tell the API server which pods get the sidecar, and which may not start
    #[command(after_help = help::webhook())]
    Webhook,
    /// Print the definitions of our custom resources, as `kubectl apply -f -` takes them
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().role {
        Role::Bridge => {
            let settings = Settings::read(|key| std::env::var(key).ok())?;
            let unknown = settings::unknown(process::variables());
            process::begin(&settings, &settings.log, &unknown)
                .map_err(anyhow::Error::msg)
                .context("OUTRIDER_BRIDGE_LOG")?;
            process::run(bridge(settings))
        }
        Role::Controller => {
            let settings = controller::settings::Settings::read(|key| std::env::var(key).ok())?;
            let unknown = controller::settings::unknown(process::variables());
            process::begin(&settings, &settings.log, &unknown)
                .map_err(anyhow::Error::msg)
                .context("OUTRIDER_CONTROLLER_LOG")?;
            process::run(controller(settings))
        }
        Role::Webhook => {
            let settings = webhook::settings::Settings::read(|key| std::env::var(key).ok())?;
            let unknown = webhook::settings::unknown(process::variables());
            process::begin(&settings, &settings.log, &unknown)
                .map_err(anyhow::Error::msg)
                .context("OUTRIDER_WEBHOOK_LOG")?;
            process::run(webhook(settings))
        }
        Role::Crds => {
            std::io::stdout().write_all(objects::yaml()?.as_bytes())?;
            Ok(())
        }
    }
}

async fn bridge(settings: Settings) -> anyhow::Result<()> {
    let end = End::new()?;
    let bridge = Bridge::open(settings).await?;
    tracing::info!(api = %bridge.api_address()?, metrics = %bridge.metrics_address()?, "listening");
    let stop = CancellationToken::new();
    Ok(end.wait(Box::pin(bridge.run(stop.clone())), stop).await?)
}

async fn controller(settings: controller::settings::Settings) -> anyhow::Result<()> {
    let end = End::new()?;
    let controller = Controller::open(settings, Terms::default()).await?;
    let (address, metrics) = (controller.address()?, controller.metrics_address()?);
    tracing::info!(%address, %metrics, "listening");
    let stop = CancellationToken::new();
    Ok(end
        .wait(Box::pin(controller.run(stop.clone())), stop)
        .await?)
}

async fn webhook(settings: webhook::settings::Settings) -> anyhow::Result<()> {
    let end = End::new()?;
    let webhook = Webhook::open(settings, Terms::default()).await?;
    let (address, metrics) = (webhook.address()?, webhook.metrics_address()?);
    tracing::info!(%address, %metrics, "listening");
    let stop = CancellationToken::new();
    Ok(end.wait(Box::pin(webhook.run(stop.clone())), stop).await?)
}
