//! The proxies: how each is started in the pod.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    RunArgs,
    world::{Running, Where, World},
};

/// What stands between client and server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Proxy {
    /// Nothing.
    Direct,
    /// The sidecar of this project.
    Outrider,
    /// A copy that looks at nothing, with the same runtime.
    Reference,
    /// Envoy as an inbound sidecar: TLS and HTTP sniffed, ten authorisation policies.
    Envoy,
    /// HAProxy, plain TCP.
    Haproxy,
}

/// Where everyone but Outrider listens.
const PORT: u16 = 15006;
/// Outrider's inbound listener.
const OUTRIDER_PORT: u16 = 15106;
/// Outrider's user.
pub(crate) const OUTRIDER_UID: u32 = 1771;
/// The user of everyone else.
const OTHER_UID: u32 = 1337;

impl Proxy {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Outrider => "outrider",
            Self::Reference => "reference",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether it can be run here, else why not.
    pub(crate) fn missing(self, args: &RunArgs) -> Option<String> {
        let found = |program: &Path| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|out| out.status.success())
        };
        match self {
            Self::Outrider if !args.outrider.exists() => {
                Some(format!("{} is not there: cargo build --release", args.outrider.display()))
            }
            Self::Envoy if !found(&args.envoy) => {
                Some("no envoy on the path: name one with --envoy (make bench installs one)".into())
            }
            Self::Haproxy if !Path::new("/usr/sbin/haproxy").exists() => {
                Some("haproxy is not installed".into())
            }
            _ => None,
        }
    }

    /// Starts it and sends the pod's inbound TCP to it; `None` for direct.
    pub(crate) fn start(self, world: &World, args: &RunArgs) -> Result<Option<Running>> {
        world.intercept(None)?;
        let Some(command) = self.command(world, args)? else { return Ok(None) };
        let (uid, port) = match self {
            Self::Outrider => (OUTRIDER_UID, OUTRIDER_PORT),
            _ => (OTHER_UID, PORT),
        };
        let confined = format!(
            "setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs \
             --bounding-set=-all {command}"
        );
        let running = world.spawn(Where::Pod, &confined, self.name())?;
        world.await_port(port)?;
        world.intercept(Some(port))?;
        Ok(Some(running))
    }

    fn command(self, world: &World, args: &RunArgs) -> Result<Option<String>> {
        let file = |name: &str, text: String| -> Result<String> {
            let path = world.dir.join(name);
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        Ok(match self {
            Self::Direct => None,
            Self::Outrider => {
                let binary = readable(world, &args.outrider)?;
                let ctrl = world.dir.join("ctrl");
                fs::create_dir_all(&ctrl)?;
                std::os::unix::fs::chown(&ctrl, Some(OUTRIDER_UID), Some(OUTRIDER_UID))?;
                Some(format!("env OUTRIDER_CTRL_DIR={} {binary}", ctrl.display()))
            }
            Self::Reference => {
                let own = readable(world, &std::env::current_exe()?)?;
                Some(format!("{own} tool reference {PORT}"))
            }
            Self::Envoy => {
                let config = file("envoy.yaml", envoy_yaml())?;
                let envoy = readable(world, &args.envoy)?;
                Some(format!(
                    "{envoy} -c {config} --concurrency 2 -l warning --use-dynamic-base-id"
                ))
            }
            Self::Haproxy => {
                let config = file("haproxy.cfg", haproxy_cfg())?;
                Some(format!("haproxy -db -f {config}"))
            }
        })
    }
}

/// A copy of a program where every user can reach it: a home directory may be closed to the proxies'.
pub(crate) fn readable(world: &World, program: &Path) -> Result<String> {
    let name = program.file_name().context("a program has a name")?;
    let copy = world.dir.join(name);
    if !copy.exists() {
        fs::copy(program, &copy).with_context(|| program.display().to_string())?;
    }
    Ok(copy.display().to_string())
}

fn haproxy_cfg() -> String {
    format!(
        "global\n  nbthread 2\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 5s\n\
         \x20 timeout client 1h\n  timeout server 1h\nfrontend in\n  bind 0.0.0.0:{PORT}\n\
         \x20 default_backend original\nbackend original\n  server original 0.0.0.0\n"
    )
}

/// An inbound sidecar: original destination, TLS and HTTP recognised, ten policies of which the last allows.
fn envoy_yaml() -> String {
    let never = (1..10).map(|n| {
        format!(
            "p{n}: {{permissions: [{{url_path: {{path: {{prefix: /never/{n}/}}}}}}], \
             principals: [{{direct_remote_ip: {{address_prefix: 192.0.2.{n}, prefix_len: 32}}}}]}}"
        )
    });
    let last = "last: {permissions: [{any: true}], principals: [{any: true}]}".to_owned();
    let policies = never.chain([last]).collect::<Vec<_>>().join(", ");
    let ext = "type.googleapis.com/envoy.extensions";
    format!(
        r#"
static_resources:
  listeners:
  - name: inbound
    address: {{socket_address: {{address: 0.0.0.0, port_value: {PORT}}}}}
    listener_filters:
    - {{name: original_dst, typed_config: {{"@type": {ext}.filters.listener.original_dst.v3.OriginalDst}}}}
    - {{name: tls, typed_config: {{"@type": {ext}.filters.listener.tls_inspector.v3.TlsInspector}}}}
    - {{name: http, typed_config: {{"@type": {ext}.filters.listener.http_inspector.v3.HttpInspector}}}}
    listener_filters_timeout: 0.1s
    continue_on_listener_filters_timeout: true
    filter_chains:
    - filter_chain_match: {{application_protocols: ["http/1.0", "http/1.1", "h2c"]}}
      filters:
      - name: http
        typed_config:
          "@type": {ext}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          stream_idle_timeout: 0s
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: original, timeout: 0s}}}}]}}]}}
          http_filters:
          - {{name: rbac, typed_config: {{"@type": {ext}.filters.http.rbac.v3.RBAC, rules: {{action: ALLOW, policies: {{{policies}}}}}}}}}
          - {{name: router, typed_config: {{"@type": {ext}.filters.http.router.v3.Router}}}}
    - filters:
      - {{name: tcp, typed_config: {{"@type": {ext}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: original}}}}
  clusters:
  - {{name: original, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 5s}}
"#
    )
}
