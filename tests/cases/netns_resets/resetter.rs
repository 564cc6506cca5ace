//! The process that resets.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use outrider_model::names;
use outrider_tests::{Namespace, World};
use tokio::time::Instant;

/// A process with `NET_RAW` and nothing else.
pub(crate) struct Resetter {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Resetter {
    pub(crate) fn start(inside: &Namespace, world: &World) -> Result<Self> {
        let copy = world.file("bin/resetter")?;
        if !copy.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_resetter"), &copy)?;
        }
        let id = names::PROXY_UID.to_string();
        let sets = ["inh-caps", "ambient-caps", "bounding-set"];
        let mut child = inside
            .command("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"])
            .args(sets.map(|set| format!("--{set}=-all,+net_raw")))
            .arg(copy)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("its standard input")?;
        let output = child.stdout.take().context("its standard output")?;
        let mut resetter = Self { child, input, output: BufReader::new(output) };
        ensure!(resetter.line()? == "ready\n", "it does not start");
        Ok(resetter)
    }

    /// Tells it which; returns when that was.
    pub(crate) fn condemn(
        &mut self,
        talks: impl Iterator<Item = [SocketAddr; 2]>,
    ) -> Result<Instant> {
        let mut text: String = talks.map(|[near, far]| format!("{near} {far}\n")).collect();
        text.push('\n');
        let decided = Instant::now();
        self.input.write_all(text.as_bytes())?;
        Ok(decided)
    }

    /// Waits until it has nothing left to do, and checks that all of them are gone and known to be.
    pub(crate) fn done(&mut self, talks: usize) -> Result<()> {
        self.says(&format!("condemned: {talks}, overflow: 0, done: {talks}, silent: 0, alive: 0,"))
    }

    /// Waits until it has nothing left to do, and checks what it says then.
    pub(crate) fn says(&mut self, want: &str) -> Result<()> {
        let said = self.line()?;
        ensure!(said.contains(want) && said.contains("unsent: 0"), "{said}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Resetter {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
