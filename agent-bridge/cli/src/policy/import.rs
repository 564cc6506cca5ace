//! Into force: a node's file of policy, or a cluster's objects.

use outrider_api::{
    ObjectVerdict, PolicyReply, PolicyRequest, PolicyText,
    code::{self},
    paths,
};
use serde_json::{Value, json};

use super::{diff, source::Source};
use crate::{
    Asked,
    client::{Client, Failure},
    cluster::Cluster,
    show::Output,
};

/// Brings a policy into force, or only says what that would change.
pub(super) async fn run(
    asked: &Asked,
    output: &mut Output,
    file: &Source,
    dry_run: bool,
) -> Result<(), Failure> {
    let (text, objects) = file.policy(asked, output).await?;
    match asked {
        Asked::Bridge(client) => {
            node(client, output, PolicyRequest { policy: text, dry_run }, &objects).await
        }
        Asked::Cluster(cluster) => apply(cluster, output, &objects, dry_run).await,
    }
}

async fn node(
    client: &Client,
    output: &mut Output,
    wanted: PolicyRequest,
    objects: &[Value],
) -> Result<(), Failure> {
    let tried = PolicyRequest { dry_run: true, ..wanted.clone() };
    let reply: PolicyReply = client.put(paths::POLICY, &tried).await?;
    judge(output, &reply.objects)?;
    diff::print(output, &code::diff(&live(client).await?, objects))?;
    if wanted.dry_run {
        return output.say("every object is accepted; nothing was written");
    }
    let reply: PolicyReply = client.put(paths::POLICY, &wanted).await?;
    judge(output, &reply.objects)?;
    let (count, path) = (objects.len(), &reply.path);
    output.say(&format!("{path} has these objects ({count}): they are in force within a second"))
}

/// What people wrote and a bridge has in its file.
pub(super) async fn live(client: &Client) -> Result<Vec<Value>, Failure> {
    let text: PolicyText = client.get(paths::POLICY).await?;
    let wrong = |error| Failure::Refused(format!("the bridge's file of policy: {error}"));
    code::read(&text.policy).map_err(wrong)
}

/// Says what is to be said of objects; refused ones are a failure.
pub(super) fn judge(output: &mut Output, objects: &[ObjectVerdict]) -> Result<(), Failure> {
    for one in objects.iter().filter(|one| one.reason != "Accepted") {
        let ObjectVerdict { object, field, message, reason, .. } = one;
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        output.note(&crate::human::plain(&format!("{object}: {field}{message} ({reason})")))?;
    }
    match objects.iter().filter(|one| !one.accepted).count() {
        0 => Ok(()),
        count => Err(Failure::Refused(format!(
            "{count} of the objects would be refused: nothing was changed; correct them and try again"
        ))),
    }
}

async fn apply(
    cluster: &Cluster,
    output: &mut Output,
    objects: &[Value],
    dry_run: bool,
) -> Result<(), Failure> {
    if objects.is_empty() {
        return Err(Failure::Usage("there is no object in it".into()));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    // Objects that are there and not in the file stay: apply takes nothing away.
    let mut after = cluster.policy().await?;
    let before = after.clone();
    cluster.apply(&list, true).await?;
    after.retain(|old| !objects.iter().any(|new| is_same(old, new)));
    after.extend(objects.iter().cloned());
    diff::print(output, &code::diff(&before, &after))?;
    if dry_run {
        return output.say("the API server would take every object; nothing was applied");
    }
    cluster.apply(&list, false).await?;
    output.say(&format!(
        "{} objects are applied; `kubectl get outrider -A` shows what comes of them",
        objects.len()
    ))
}

/// Whether both are the same object, whatever they say.
fn is_same(one: &Value, other: &Value) -> bool {
    let name = |object: &Value| {
        let meta = &object["metadata"];
        (object["kind"].clone(), meta["namespace"].clone(), meta["name"].clone())
    };
    name(one) == name(other)
}
