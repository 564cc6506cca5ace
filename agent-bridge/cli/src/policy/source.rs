//! Where a policy is read from.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
};

use outrider_api::{
    Rule, Workload,
    code::{self, Form, MAX_BYTES},
    paths,
};
use serde_json::Value;

use super::foreign::{Ours, need_workloads, ours};
use crate::{Asked, client::Failure, show::Output};

/// Where a policy is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// Standard input.
    Input,
    /// A file.
    File(PathBuf),
    /// What was learned.
    Learned,
    /// What people wrote and is in force.
    Live,
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" => Self::Input,
            "learned" => Self::Learned,
            "live" => Self::Live,
            path => Self::File(path.into()),
        })
    }
}

impl Source {
    /// What messages call it.
    fn name(&self) -> String {
        match self {
            Self::Input => "standard input".into(),
            Self::File(path) => path.display().to_string(),
            Self::Learned => "learned".into(),
            Self::Live => "live".into(),
        }
    }

    /// A policy to be in force, as text and as objects: as it was written, if every object of it is ours.
    pub(super) async fn policy(
        &self,
        asked: &Asked,
        output: &mut Output,
    ) -> Result<(String, Vec<Value>), Failure> {
        let text = self.text()?;
        let Ours { objects, notes, refused } = self.translated(asked, &text).await?;
        for said in notes.iter().chain(&refused) {
            output.note(&crate::human::plain(said))?;
        }
        match (refused.len(), notes.is_empty()) {
            (0, true) => Ok((text, objects)),
            (0, false) => Ok((code::write(&objects), objects)),
            (count, _) => Err(Failure::Refused(format!(
                "{count} objects of other kinds can't be said in rules: nothing was changed"
            ))),
        }
    }

    /// The objects of a text, all of them ours. Who asks for pods of services needs a bridge.
    async fn translated(&self, asked: &Asked, text: &str) -> Result<Ours, Failure> {
        let objects = code::read(text).map_err(|error| self.wrong(&error))?;
        let workloads = match need_workloads(&objects) {
            true => asked.list::<Workload>(paths::WORKLOADS, None).await?,
            false => Vec::new(),
        };
        Ok(ours(objects, &workloads))
    }

    /// The text of a file or of standard input.
    fn text(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let most = u64::try_from(MAX_BYTES)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let read = match self {
            Self::Input => io::stdin().take(most).read_to_string(&mut text),
            Self::File(path) => {
                File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
            }
            Self::Learned | Self::Live => {
                let name = self.name();
                return Err(Failure::Usage(format!("{name} is no file; ./{name} is one")));
            }
        };
        read.map_err(|error| self.wrong(&error))?;
        Ok(text)
    }

    /// The objects there.
    pub(super) async fn objects(&self, asked: &Asked) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Input | Self::File(_) => {
                let Ours { objects, refused, .. } = self.translated(asked, &self.text()?).await?;
                refused
                    .first()
                    .map_or(Ok(objects), |why| Err(self.wrong(why)))
            }
            Self::Learned => {
                let rules = asked.list::<Rule>(paths::RULES, None).await?;
                let workloads = asked.list::<Workload>(paths::WORKLOADS, None).await?;
                let made = code::export(&rules, &workloads, Form::Outrider, None);
                Ok(made.objects.iter().map(code::plain).collect())
            }
            Self::Live => live(asked).await,
        }
    }

    fn wrong(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::Usage(format!("{}: {why}", self.name()))
    }
}

/// What people wrote and is in force.
async fn live(asked: &Asked) -> Result<Vec<Value>, Failure> {
    match asked {
        Asked::Cluster(cluster) => cluster.policy().await,
        Asked::Bridge(client) => super::import::live(client).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_files_are_told_apart() {
        for (text, source) in [
            ("-", Source::Input),
            ("learned", Source::Learned),
            ("live", Source::Live),
            ("./live", Source::File("./live".into())),
        ] {
            assert_eq!(text.parse(), Ok(source));
        }
        let failure = Source::File("/nonexistent/policy.yaml".into())
            .text()
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(
            failure
                .to_string()
                .starts_with("/nonexistent/policy.yaml: "),
            "{failure}"
        );
    }
}
