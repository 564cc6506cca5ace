//! Real servers in a pod.

use std::{fs, net::Ipv4Addr, process::Command};

use anyhow::Result;

use super::{Pod, START};
use crate::process::{Process, run};

impl Pod {
    /// Starts nginx: HTTP on 80, cleartext HTTP/2 on 8080, TLS (1.0 to 1.3, ALPN) on 443, both
    /// families. `/` says who it is, `/1k` is 1 KiB, `/files/` is [`Pod::files`].
    pub fn serve_nginx(&mut self) -> Result<()> {
        let (root, conf) = (self.file("www"), self.file("nginx.conf"));
        fs::create_dir_all(root.join("files"))?;
        fs::write(root.join("index.html"), format!("hello from {}\n", self.name))?;
        fs::write(root.join("1k"), "x".repeat(1024))?;
        let (cert, key) = (self.file("cert.pem"), self.file("key.pem"));
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=web.example"])
            .args(["-addext", "subjectAltName=DNS:web.example"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert))?;
        let dir = self.file("nginx");
        fs::create_dir_all(&dir)?;
        fs::write(
            &conf,
            NGINX_CONF
                .replace("@DIR@", &dir.display().to_string())
                .replace("@ROOT@", &root.display().to_string())
                .replace("@CERT@", &cert.display().to_string())
                .replace("@KEY@", &key.display().to_string()),
        )?;
        let mut command = self.netns.command("nginx");
        command.arg("-c").arg(&conf).arg("-p").arg(&dir);
        self.serve("nginx", command, &[80, 443, 8080])
    }

    /// Where nginx's `/files/` lies.
    #[must_use]
    pub fn files(&self) -> std::path::PathBuf {
        self.file("www").join("files")
    }

    /// Starts redis on 6379, both families, without a disk.
    pub fn serve_redis(&mut self) -> Result<()> {
        let mut command = self.netns.command("redis-server");
        command
            .args(["--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no"])
            .args(["--save", "", "--daemonize", "no", "--dir"])
            .arg(self.file(""));
        self.serve("redis", command, &[6379])
    }

    /// Starts a server and waits until it accepts on each of `ports` over the pod's loopback, which
    /// is never redirected.
    pub fn serve(&mut self, name: &str, command: Command, ports: &[u16]) -> Result<()> {
        let log = self.log(name);
        let mut server = Process::spawn(&format!("{name} in {}", self.name), command, &log)?;
        server.ready(START, || {
            ports
                .iter()
                .try_for_each(|port| self.accepts((Ipv4Addr::LOCALHOST, *port).into()))
        })?;
        self.servers.push(server);
        Ok(())
    }

    /// Ends every server of this pod.
    pub fn stop_servers(&mut self) {
        self.servers.clear();
    }
}

const NGINX_CONF: &str = "\
user nobody nogroup;
daemon off;
worker_processes 1;
error_log stderr warn;
pid @DIR@/nginx.pid;
events { worker_connections 4096; }
http {
    access_log @DIR@/access.log;
    default_type text/plain;
    client_body_temp_path @DIR@/body;
    proxy_temp_path @DIR@/proxy;
    fastcgi_temp_path @DIR@/fastcgi;
    uwsgi_temp_path @DIR@/uwsgi;
    scgi_temp_path @DIR@/scgi;
    keepalive_requests 1000000;
    client_max_body_size 0;
    sendfile on;
    ssl_certificate @CERT@;
    ssl_certificate_key @KEY@;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_ciphers DEFAULT:@SECLEVEL=0;
    server {
        listen 80 backlog=4096;
        listen [::]:80 ipv6only=on backlog=4096;
        listen 8080 http2;
        listen [::]:8080 ipv6only=on http2;
        listen 443 ssl http2;
        listen [::]:443 ipv6only=on ssl http2;
        root @ROOT@;
    }
}
";
