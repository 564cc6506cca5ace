//! What people wrote, for a node without a cluster: checked, brought into force, tried out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use outrider_api::{
    MAX_REPLAYED, ObjectVerdict, PolicyReply, PolicyRequest, PolicyText, ReplayReply,
    ReplayRequest, Replayed,
};
use outrider_learn::Supposed;
use outrider_model::Mode;
use parking_lot::Mutex;

use super::{Node, Refusal};
use crate::{
    controller::{
        plan::{Kind, Objects, Plan, Verdict},
        resolve::resolve,
    },
    policy_file,
    settings::Settings,
};

/// Who may read a file that was not there before: its owner and group.
const FILE_MODE: u32 = 0o640;

/// Where people's policy comes from.
#[derive(Debug)]
pub(super) struct Written {
    file: Option<PathBuf>,
    in_cluster: bool,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

impl Written {
    pub(super) fn of_settings(settings: &Settings) -> Self {
        let (file, in_cluster) = (settings.policy.clone(), settings.link.is_some());
        Self { file, in_cluster, writing: Mutex::new(()) }
    }

    fn alone(&self) -> Result<(), Refusal> {
        if !self.in_cluster {
            return Ok(());
        }
        Err(Refusal::Unable(
            "a controller says the policy here: `kubectl outrider policy` is about the cluster's"
                .into(),
        ))
    }

    fn file(&self) -> Result<&Path, Refusal> {
        self.alone()?;
        self.file.as_deref().ok_or_else(|| {
            let why = "the bridge has no file of policy: name one in OUTRIDER_BRIDGE_POLICY and start it again";
            Refusal::Unable(why.into())
        })
    }
}

impl Node {
    /// What is in the file of policy.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub(crate) fn written(&self) -> Result<PolicyText, Refusal> {
        let path = self.written.file()?;
        let policy = policy_file::text(path).map_err(|error| unable(path, &error))?;
        Ok(PolicyText { policy })
    }

    /// Has the file be this text, if every object of it is accepted; returns once it is on the disk.
    ///
    /// # Errors
    /// When there is no file, the text is none of objects, or it can't be written.
    pub(crate) fn write(&self, asked: &PolicyRequest) -> Result<PolicyReply, Refusal> {
        let path = self.written.file()?;
        let (_, objects) = self.checked(&asked.policy)?;
        let written = !asked.dry_run && objects.iter().all(|one| one.accepted);
        if written {
            let _one_at_a_time = self.written.writing.lock();
            replace(path, &asked.policy).map_err(|error| unable(path, &error))?;
            tracing::info!(path = %path.display(), objects = objects.len(), "policy written");
        }
        Ok(PolicyReply { written, path: path.display().to_string(), objects })
    }

    /// What would become of the conversations that are known, were this text in force.
    ///
    /// # Errors
    /// When a controller says the policy, or the text is none of objects.
    pub(crate) fn replay(&self, asked: &ReplayRequest) -> Result<ReplayReply, Refusal> {
        self.written.alone()?;
        let mode = asked.mode.as_deref().map(str::parse::<Mode>).transpose();
        let mode = mode.map_err(|error| Refusal::Bad(error.to_string()))?;
        let (proposed, objects) = self.checked(&asked.policy)?;
        let plan = resolve(&proposed, &self.world());
        let now = self.state.lock().learner.clone();
        let said = policy_file::changes(&Plan::default(), &plan);
        let other = now.under(said, Supposed { alone: asked.alone, mode });
        let other = other.map_err(|error| Refusal::Bad(error.to_string()))?;
        let replay = now.replay(&other);
        let changed = replay.changed.iter().take(MAX_REPLAYED);
        Ok(ReplayReply {
            judged: replay.judged as u64,
            unjudged: replay.unjudged as u64,
            left_out: replay.changed.len().saturating_sub(MAX_REPLAYED) as u64,
            changed: changed.map(replayed).collect(),
            objects,
        })
    }

    /// The objects of a text, and what is to be said of each.
    fn checked(&self, text: &str) -> Result<(Objects, Vec<ObjectVerdict>), Refusal> {
        let parsed = policy_file::parse(text).map_err(|error| Refusal::Bad(error.to_string()))?;
        let plan = resolve(&parsed.objects, &self.world());
        let mut said = parsed.refused;
        said.extend(plan.verdicts.values().map(|one| verdict(one)));
        Ok((parsed.objects, said))
    }
}

fn unable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::Unable(format!("{}: {error}; the bridge's account has to be let to", path.display()))
}

fn verdict(said: &Verdict) -> ObjectVerdict {
    let kind = match said.kind {
        Kind::Group => "WorkloadGroup",
        Kind::ClusterGroup => "ClusterWorkloadGroup",
        Kind::Rule => "NetworkRule",
        Kind::ClusterRule => "ClusterNetworkRule",
        Kind::Mode => "WorkloadMode",
        Kind::ClusterMode => "ClusterWorkloadMode",
    };
    let name = [kind, &said.namespace, &said.name];
    let name: Vec<_> = name.into_iter().filter(|part| !part.is_empty()).collect();
    ObjectVerdict {
        object: name.join("/"),
        accepted: said.accepted,
        reason: said.reason.into(),
        field: said.field.clone().unwrap_or_default(),
        message: said.message.clone(),
    }
}

fn replayed(one: &outrider_learn::Replayed<'_>) -> Replayed {
    let (known, key) = (one.conversation, &one.conversation.key);
    Replayed {
        client: known.client_name.clone(),
        server: known.server_name.clone(),
        app: key.app.to_string(),
        proto: key.proto.to_string(),
        port: key.port,
        sessions: known.sessions,
        last_seen: known.last_seen,
        before: one.before.label().into(),
        after: one.after.label().into(),
        at: one.at.clone(),
        rule: one.rule.clone(),
    }
}

/// Puts a text in the place of a file: whoever reads sees all of one or the other, and after a crash too.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found?,
    };
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = dir.join(name);
    let done = write_new(&fresh, text, fs::metadata(&path).ok().map(|old| old.permissions()))
        .and_then(|()| fs::rename(&fresh, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    if done.is_err() {
        // It is in nobody's way, but of no use either.
        drop(fs::remove_file(&fresh));
    }
    done
}

fn write_new(path: &Path, text: &str, permissions: Option<fs::Permissions>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
