//! outrider, the command line for people.
#![forbid(unsafe_code)]

mod args;
mod capture;
mod client;
mod follow;
mod human;
mod inspect;
mod narrow;
mod show;
mod table;
mod token;

use std::{io::Write, process::ExitCode};

use args::{Args, Command, ModeCommand};
use clap::{CommandFactory, Parser};
use client::{Client, Failure};
use narrow::{Followed, Narrow};
use outrider_api::{
    Conversation, EventKind, ExplainQuery, Explanation, Flow, ModeReply, ModeRequest, Rule,
    Session, Status, Threat, Violation, Workload, paths,
};
use serde::de::DeserializeOwned;
use show::{Output, Row};

fn main() -> ExitCode {
    let args = Args::parse();
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

async fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::new(args.bridge.as_ref(), token::find(args.token_file.as_deref())?);
    let mut output = Output::new(args.json);
    match &args.command {
        Command::Rules(narrow) => listed::<Rule>(&client, &mut output, paths::RULES, narrow).await,
        Command::Conversations(narrow) => {
            listed::<Conversation>(&client, &mut output, paths::CONVERSATIONS, narrow).await
        }
        Command::Flows(wanted) => {
            events::<Flow>(&client, &mut output, (EventKind::Flow, paths::FLOWS), wanted).await
        }
        Command::Violations(wanted) => {
            let what = (EventKind::Violation, paths::VIOLATIONS);
            events::<Violation>(&client, &mut output, what, wanted).await
        }
        Command::Threats(wanted) => {
            events::<Threat>(&client, &mut output, (EventKind::Threat, paths::THREATS), wanted)
                .await
        }
        Command::Sessions { workload } => {
            let path = client::with_query(paths::SESSIONS, &[("workload", workload.as_deref())]);
            output.list(&client.list::<Session>(&path, None).await?)
        }
        Command::Workloads => output.list(&client.list::<Workload>(paths::WORKLOADS, None).await?),
        Command::Status => output.status(&client.get::<Status>(paths::STATUS).await?),
        Command::Mode(ModeCommand::Get { workload }) => {
            let workloads = client.list::<Workload>(paths::WORKLOADS, None).await?;
            output.mode(find(&workloads, workload)?)
        }
        Command::Mode(ModeCommand::Set { workload, mode }) => {
            let path = client::mode_path(workload);
            let wanted = ModeRequest { mode: mode.to_string() };
            let reply: ModeReply = client.put(&path, &wanted).await?;
            output.mode_set(&reply)?;
            confirmed(&reply)
        }
        Command::Capture(wanted) => Box::pin(capture::run(&client, &mut output, wanted)).await,
        Command::Inspect { .. } | Command::Completion { .. } => Ok(()),
        Command::Explain { client: from, server, port, app } => {
            let query = ExplainQuery {
                client: from.clone(),
                server: server.clone(),
                port: *port,
                app: app.clone(),
            };
            let path = client::explain_path(&query);
            output.explanation(&client.get::<Explanation>(&path).await?)
        }
    }
}

/// A list, or what is added to it from now on.
async fn events<T: Row + DeserializeOwned>(
    client: &Client,
    output: &mut Output,
    (kind, path): (EventKind, &str),
    wanted: &Followed,
) -> Result<(), Failure> {
    if wanted.follow {
        return Box::pin(follow::run::<T>(client, output, kind, &wanted.narrow)).await;
    }
    listed::<T>(client, output, path, &wanted.narrow).await
}

/// A list, narrowed.
async fn listed<T: Row + DeserializeOwned>(
    client: &Client,
    output: &mut Output,
    path: &str,
    narrow: &Narrow,
) -> Result<(), Failure> {
    output.list(&client.list::<T>(&narrow.path(path), narrow.limit).await?)
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
    if reply.pending == 0 {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "stored, but {} of the connected proxies did not confirm in time; they get it when they \
         answer again (`outrider workloads` shows who does)",
        reply.pending
    )))
}
