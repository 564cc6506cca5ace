//! outrider, the command line for people.
#![forbid(unsafe_code)]

mod args;
mod capture;
mod client;
mod cluster;
mod follow;
mod human;
mod inspect;
mod narrow;
mod policy;
mod probe;
mod show;
mod table;
mod token;

use std::{io::Write, process::ExitCode};

use args::{Args, Command, ModeCommand};
use clap::{CommandFactory, Parser};
use client::{Client, Failure};
use cluster::{Cluster, Tunnel};
use narrow::{Followed, Narrow};
use outrider_api::{
    Conversation, EventKind, ExplainQuery, Explanation, Flow, ModeReply, ModeRequest, Rule,
    Session, Status, Threat, Violation, Workload, paths,
};
use serde::de::DeserializeOwned;
use show::{Output, Row};

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.cluster |= is_plugin();
    if let Command::Inspect { file } = &args.command {
        return finish(&inspect::run(file, args.json));
    }
    if let Command::Completion { shell } = &args.command {
        return finish(&completion(*shell));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return finish(&Err(Failure::Output(error))),
    };
    if let Command::Probe(probe) = &args.command {
        return finish(&runtime.block_on(probe::run(probe)));
    }
    finish(&runtime.block_on(run(&args)))
}

/// Says what went wrong, if anything, and picks the exit code.
fn finish(result: &Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            drop(writeln!(std::io::stderr(), "outrider: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether kubectl calls us, as `kubectl outrider`.
fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    let name = name
        .as_deref()
        .and_then(|name| std::path::Path::new(name).file_name()?.to_str());
    name.is_some_and(|name| name.starts_with("kubectl-"))
}

/// Who is asked.
enum Asked {
    /// One bridge.
    Bridge(Client),
    /// Those of a cluster.
    Cluster(Cluster),
}

/// The bridge that a question is for.
enum One<'a> {
    Bridge(&'a Client),
    Tunnel(Box<Tunnel>),
}

impl One<'_> {
    fn client(&self) -> &Client {
        match self {
            Self::Bridge(client) => client,
            Self::Tunnel(tunnel) => &tunnel.client,
        }
    }
}

impl Asked {
    async fn list<T>(&self, path: &str, limit: Option<u32>) -> Result<Vec<T>, Failure>
    where
        T: DeserializeOwned + Send + 'static,
    {
        match self {
            Self::Bridge(client) => client.list(path, limit).await,
            Self::Cluster(cluster) => cluster.list(path, limit).await,
        }
    }

    /// The bridge of a workload's node.
    async fn one(&self, workload: Option<&str>) -> Result<One<'_>, Failure> {
        match self {
            Self::Bridge(client) => Ok(One::Bridge(client)),
            Self::Cluster(cluster) => Ok(One::Tunnel(Box::new(cluster.of(workload).await?))),
        }
    }

    fn cluster(&self) -> Result<&Cluster, Failure> {
        match self {
            Self::Cluster(cluster) => Ok(cluster),
            Self::Bridge(_) => Err(Failure::Usage(
                "this is about a cluster: `kubectl outrider …`, or `outrider --cluster …`".into(),
            )),
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let token = token::find(args.token_file.as_deref())?;
    let asked = if args.cluster {
        Asked::Cluster(Cluster::new(args, token))
    } else {
        Asked::Bridge(Client::new(args.bridge.as_ref(), token))
    };
    let mut output = Output::new(args.json);
    match &args.command {
        Command::Conversations(narrow) => conversations(&asked, &mut output, narrow).await,
        Command::Rules(narrow) => listed::<Rule>(&asked, &mut output, paths::RULES, narrow).await,
        Command::Flows(wanted) => {
            events::<Flow>(&asked, &mut output, (EventKind::Flow, paths::FLOWS), wanted).await
        }
        Command::Violations(wanted) => {
            let what = (EventKind::Violation, paths::VIOLATIONS);
            events::<Violation>(&asked, &mut output, what, wanted).await
        }
        Command::Threats(wanted) => {
            events::<Threat>(&asked, &mut output, (EventKind::Threat, paths::THREATS), wanted).await
        }
        Command::Sessions(open) => {
            listed::<Session>(&asked, &mut output, paths::SESSIONS, &open.into()).await
        }
        Command::Workloads => output.list(&asked.list::<Workload>(paths::WORKLOADS, None).await?),
        Command::Status => match &asked {
            Asked::Bridge(client) => output.status(&client.get::<Status>(paths::STATUS).await?),
            Asked::Cluster(cluster) => cluster.status(&mut output).await,
        },
        Command::Check { pre } => asked.cluster()?.check(&mut output, *pre).await,
        Command::Coverage => asked.cluster()?.coverage(&mut output).await,
        Command::Mode(wanted) => mode(&asked, &mut output, wanted).await,
        Command::Policy(wanted) => policy::run(&asked, &mut output, wanted).await,
        Command::Capture(wanted) => {
            let one = asked.one(Some(&wanted.workload)).await?;
            Box::pin(capture::run(one.client(), &mut output, wanted)).await
        }
        Command::Inspect { .. } | Command::Completion { .. } | Command::Probe(_) => Ok(()),
        Command::Explain { client: from, server, port, app } => {
            let query = ExplainQuery {
                client: from.clone(),
                server: server.clone(),
                port: *port,
                app: app.clone(),
            };
            let path = client::explain_path(&query);
            let one = asked.one(Some(server)).await?;
            output.explanation(&one.client().get::<Explanation>(&path).await?)
        }
    }
}

/// Modes: of a bridge's workloads, or objects of a cluster.
async fn mode(asked: &Asked, output: &mut Output, wanted: &ModeCommand) -> Result<(), Failure> {
    match (asked, wanted) {
        (Asked::Bridge(client), ModeCommand::Get { workload }) => {
            let workloads = client.list::<Workload>(paths::WORKLOADS, None).await?;
            output.mode(find(&workloads, workload)?)
        }
        (Asked::Bridge(client), ModeCommand::Set { workload, mode }) => {
            let path = client::mode_path(workload);
            let wanted = ModeRequest { mode: mode.to_string() };
            let reply: ModeReply = client.put(&path, &wanted).await?;
            output.mode_set(&reply)?;
            confirmed(&reply)
        }
        (Asked::Cluster(cluster), ModeCommand::Get { workload }) => {
            cluster.mode(output, workload).await
        }
        (Asked::Cluster(cluster), ModeCommand::Set { workload, mode }) => {
            cluster.set_mode(output, workload, *mode).await
        }
    }
}

async fn conversations(asked: &Asked, output: &mut Output, narrow: &Narrow) -> Result<(), Failure> {
    match asked {
        Asked::Bridge(_) => {
            listed::<Conversation>(asked, output, paths::CONVERSATIONS, narrow).await
        }
        Asked::Cluster(cluster) => {
            let path = narrow.path(paths::CONVERSATIONS);
            output.list(&cluster.conversations(&path, narrow.limit).await?)
        }
    }
}

/// A list, or what is added to it from now on.
async fn events<T: Row + DeserializeOwned + Send + 'static>(
    asked: &Asked,
    output: &mut Output,
    (kind, path): (EventKind, &str),
    wanted: &Followed,
) -> Result<(), Failure> {
    if wanted.follow {
        let one = asked.one(wanted.narrow.workload.as_deref()).await?;
        return Box::pin(follow::run::<T>(one.client(), output, kind, &wanted.narrow)).await;
    }
    listed::<T>(asked, output, path, &wanted.narrow).await
}

/// A list, narrowed.
async fn listed<T: Row + DeserializeOwned + Send + 'static>(
    asked: &Asked,
    output: &mut Output,
    path: &str,
    narrow: &Narrow,
) -> Result<(), Failure> {
    output.list(&asked.list::<T>(&narrow.path(path), narrow.limit).await?)
}

/// Prints a shell's completion script.
fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "outrider", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// Finds the workload with that full name, or the only one with that bare name.
fn find<'a>(workloads: &'a [Workload], wanted: &str) -> Result<&'a Workload, Failure> {
    let bare = |found: &&Workload| found.name.rsplit('/').next() == Some(wanted);
    if let Some(exact) = workloads.iter().find(|found| found.name == wanted) {
        return Ok(exact);
    }
    let mut matches = workloads.iter().filter(bare);
    match (matches.next(), matches.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Failure::Refused(format!(
            "no workload {wanted:?} on this node; `outrider workloads` lists them"
        ))),
        (Some(one), Some(two)) => Err(Failure::Refused(format!(
            "{wanted:?} may be {} or {}: give the namespace too",
            one.name, two.name
        ))),
    }
}

/// A mode that a connected proxy did not confirm is stored, but not in force there.
fn confirmed(reply: &ModeReply) -> Result<(), Failure> {
    if reply.refused > 0 {
        return Err(Failure::Refused(format!(
            "the mode is in force, but {} of the connected proxies refused the new rules and go on \
             with those before (`outrider status` says why)",
            reply.refused
        )));
    }
    if reply.pending == 0 {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "stored, but {} of the connected proxies did not confirm in time; they get it when they \
         answer again (`outrider workloads` shows who does)",
        reply.pending
    )))
}
