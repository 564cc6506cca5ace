//! Policy as code: what was learned as objects, what differs, what would become of traffic, and into force with it.

mod args;
mod diff;
mod foreign;
mod import;
mod replay;
mod source;

use outrider_api::{Rule, Workload, code, paths};
use outrider_model::Mode;

use crate::{Asked, client::Failure, show::Output};
use args::Export;
pub(crate) use args::PolicyCommand;

pub(crate) async fn run(
    asked: &Asked,
    output: &mut Output,
    wanted: &PolicyCommand,
) -> Result<(), Failure> {
    match wanted {
        PolicyCommand::Export(wanted) => export(asked, output, wanted).await,
        PolicyCommand::Diff { before, after } => diff::run(asked, output, before, after).await,
        PolicyCommand::Import { file, dry_run } => import::run(asked, output, file, *dry_run).await,
        PolicyCommand::Replay { file, alone, mode } => {
            replay::run(asked, output, file, (*alone, *mode)).await
        }
    }
}

async fn export(asked: &Asked, output: &mut Output, wanted: &Export) -> Result<(), Failure> {
    let rules = asked.list::<Rule>(paths::RULES, None).await?;
    let workloads = asked.list::<Workload>(paths::WORKLOADS, None).await?;
    let mode = wanted.mode.map(Mode::name);
    let made = code::export(&rules, &workloads, wanted.format.into(), mode);
    for note in &made.left_out {
        output.note(note)?;
    }
    if made.objects.is_empty() {
        output.note(
            "nothing was learned that could be written; `outrider rules` shows what is known",
        )?;
    }
    if output.is_json() {
        return made
            .objects
            .iter()
            .try_for_each(|one| output.object(&code::plain(one)));
    }
    output.text(&code::write(&made.objects))
}
