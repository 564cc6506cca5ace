//! The proxy's file as its image has it, run as a container's runtime runs it: not root, no new privileges, and the
//! capabilities that the pod grants. It starts in each case and has what was granted.

#![cfg(test)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{binaries, require_netns};
use serde_json::Value;

#[test]
fn what_a_container_is_granted_takes_effect_and_nothing_else() -> Result<()> {
    require_netns!();
    let dir = tempfile::tempdir()?;
    let proxy = as_in_the_image(dir.path())?;
    for granted in [&[][..], &["net_raw"], &["net_admin"], &["net_raw", "net_admin"]] {
        let said = start(&proxy, dir.path(), granted)?;
        for name in ["net_raw", "net_admin"] {
            let has = said["capabilities"]
                .as_str()
                .context("no capabilities")?
                .contains(&name.to_uppercase());
            ensure!(has == granted.contains(&name), "granted {granted:?}: {said}");
        }
        ensure!(said["uid"] == 1771, "{said}");
    }
    Ok(())
}

/// Packs the binary into a layer and unpacks it, as a node does.
fn as_in_the_image(dir: &Path) -> Result<std::path::PathBuf> {
    let (from, to) = (dir.join("files"), dir.join("root"));
    fs::create_dir(&from)?;
    fs::create_dir(&to)?;
    fs::copy(binaries::find("outrider-proxy")?, from.join("outrider-proxy"))?;
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/images/layer.py");
    let layer = dir.join("layer.tar");
    run(Command::new("python3")
        .args([&pack, &layer, &from])
        .arg("outrider-proxy=net_admin,net_raw"))?;
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xf"])
        .arg(&layer)
        .arg("-C")
        .arg(&to))?;
    run(Command::new("chmod").arg("0755").args([dir, &to]))?;
    let proxy = to.join("outrider-proxy");
    // `setpriv` would hand them on to a file that has none, a runtime would not.
    let show = "import os, sys; print(os.getxattr(sys.argv[1], 'security.capability').hex())";
    let there = Command::new("python3")
        .args(["-c", show])
        .arg(&proxy)
        .output()?;
    let there = String::from_utf8(there.stdout)?;
    ensure!(there.trim() == format!("0000000200300000{}", "0".repeat(24)), "{there}");
    Ok(proxy)
}

/// Starts the proxy and returns what it says of its rights. Like a runtime, `setpriv` has the granted capabilities
/// when it has become the user, and then runs the file.
fn start(proxy: &Path, dir: &Path, granted: &[&str]) -> Result<Value> {
    let sets: String = granted.iter().map(|name| format!(",+{name}")).collect();
    let mut child = Command::new("unshare")
        .args(["--net", "setpriv", "--reuid=1771", "--regid=1771", "--clear-groups"])
        .args(["--no-new-privs", &format!("--bounding-set=-all{sets}")])
        .args([format!("--inh-caps=-all{sets}"), format!("--ambient-caps=-all{sets}")])
        .arg(proxy)
        .env("OUTRIDER_CTRL_DIR", dir)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = rights(&mut child);
    child.kill()?;
    child.wait()?;
    said
}

fn rights(child: &mut Child) -> Result<Value> {
    let mut all = String::new();
    for line in BufReader::new(child.stderr.take().context("no log")?).lines() {
        let line = line?;
        if let Ok(said) = serde_json::from_str::<Value>(&line)
            && said["message"] == "rights"
        {
            return Ok(said);
        }
        all += &line;
        all += "\n";
    }
    anyhow::bail!("it did not start: {all}")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
