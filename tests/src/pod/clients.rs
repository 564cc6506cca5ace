//! Real clients in a pod.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{COMMAND, Pod};
use crate::process::{output, run};

/// What a run of curl came to.
#[derive(Clone, Debug)]
pub struct Curl {
    /// Exit status; 7 is a refused connection, 56 a reset one, 28 a time-out.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Pod {
    /// Runs curl in the pod with arguments of its own; it never uses a proxy and checks no
    /// certificate.
    pub fn curl(&self, arguments: &[&str]) -> Result<Curl> {
        self.curl_for(COMMAND, arguments)
    }

    /// The same with a limit of its own.
    pub fn curl_for(&self, limit: Duration, arguments: &[&str]) -> Result<Curl> {
        let mut command = self.netns.limited(limit, "curl");
        command
            .args(["--silent", "--show-error", "--insecure", "--noproxy", "*"])
            .args(arguments);
        let output = output(&mut command)?;
        Ok(Curl {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Fetches a URL with curl; anything but success is an error.
    pub fn fetch(&self, url: &str) -> Result<String> {
        let curl = self.curl(&["--fail", url])?;
        anyhow::ensure!(curl.code == 0, "curl {url} in {}: {curl:?}", self.name);
        Ok(curl.out)
    }

    /// Runs one redis command against a server.
    pub fn redis_cli(&self, server: SocketAddr, command: &[&str]) -> Result<String> {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let mut client = self.netns.limited(COMMAND, "redis-cli");
        run(client.args(["-e", "-h", &host, "-p", &port]).args(command))
    }

    /// Runs a shell script in the pod.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.netns.sh(COMMAND, script)
    }
}
