//! A real API server with its etcd, on free ports and in a directory of its own. The programs are those of
//! `OUTRIDER_KUBERNETES_DIR`, or what `make e2e` or else `make test` made below `target/e2e`; without them a test says
//! SKIPPED. Include it with `#[path = "apiserver/server.rs"] mod apiserver;`.

#[path = "port.rs"]
mod port;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, api::ListParams};
use outrider_agent_bridge::cluster::client::{Source, client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use tokio::time::{Instant, sleep};

pub(crate) use self::port::free_port;

/// Token of a user who may do anything.
const ADMIN: &str = "admin-token-of-a-test";
/// A machine of two cores with other things to do takes long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both programs. They end with it.
#[derive(Debug)]
pub(crate) struct ApiServer {
    dir: tempfile::TempDir,
    bin: PathBuf,
    etcd_port: u16,
    port: u16,
    etcd: Child,
    server: Option<Child>,
    flags: &'static [&'static str],
}

impl ApiServer {
    /// Starts it, and waits until it answers; without the programs, says so.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&["--disable-admission-plugins=ServiceAccount"]).await
    }

    /// The same with these flags instead of one that has pods come without an account.
    pub(crate) async fn start_with(flags: &'static [&'static str]) -> Option<Self> {
        let bin = programs()?;
        let dir = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        identity(dir.path());
        let url = |port| format!("http://127.0.0.1:{port}");
        let etcd = Command::new(bin.join("etcd"))
            .arg(format!("--data-dir={}", dir.path().join("etcd").display()))
            .args(["--unsafe-no-fsync", "--log-level=error"])
            .arg(format!("--listen-client-urls={}", url(etcd_port)))
            .arg(format!("--advertise-client-urls={}", url(etcd_port)))
            .arg(format!("--listen-peer-urls={}", url(peer_port)))
            .stdin(Stdio::null())
            .stdout(log(dir.path(), "etcd"))
            .stderr(log(dir.path(), "etcd"))
            .spawn()
            .unwrap();
        let mut server = Self { dir, bin, etcd_port, port, etcd, server: None, flags };
        server.resume().await;
        Some(server)
    }

    /// Ends the API server, not its store.
    pub(crate) fn pause(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
        }
    }

    /// Starts it again on the same port.
    pub(crate) async fn resume(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let server = Command::new(self.bin.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"])
            .arg("--allow-privileged") // as clusters are set up
            .args(self.flags)
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .arg(format!("--tls-cert-file={}", at("server.crt")))
            .arg(format!("--tls-private-key-file={}", at("server.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", at("accounts.pub")))
            .arg(format!("--service-account-signing-key-file={}", at("accounts.key")))
            .stdin(Stdio::null())
            .stdout(log(self.dir.path(), "apiserver"))
            .stderr(log(self.dir.path(), "apiserver"))
            .spawn()
            .unwrap();
        self.server = Some(server);
        let mut until = Instant::now() + PATIENCE;
        let client = self.client().await;
        let accounts = Api::<ServiceAccount>::namespaced(client, "default");
        loop {
            match accounts.list(&ListParams::default().limit(1)).await {
                Ok(_) => return,
                Err(error) if Instant::now() > until => {
                    let log = fs::read_to_string(at("apiserver.log")).unwrap_or_default();
                    let tail = log.lines().rev().take(20).collect::<Vec<_>>().join("\n");
                    panic!("the API server does not answer: {error}\n{tail}");
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
            if !matches!(self.server.as_mut().unwrap().try_wait(), Ok(None)) {
                until = Instant::now();
            }
        }
    }

    /// A kubeconfig of a user who may do anything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let ca = self.dir.path().join("ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{}\", certificate-authority: {}}}}}]\n\
             users: [{{name: admin, user: {{token: {ADMIN}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n",
            self.port,
            ca.display(),
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// kubectl for the same user; nothing where it was not built.
    pub(crate) fn kubectl(&self) -> Option<Command> {
        let program = self.bin.join("kubectl");
        program.exists().then(|| {
            let mut command = Command::new(program);
            command.env("KUBECONFIG", self.kubeconfig());
            command
        })
    }

    /// A client for the same user.
    pub(crate) async fn client(&self) -> Client {
        client(&Source::File(self.kubeconfig())).await.unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.pause();
        drop(self.etcd.kill());
        drop(self.etcd.wait());
    }
}

fn programs() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
    let given = std::env::var_os("OUTRIDER_KUBERNETES_DIR").map(PathBuf::from);
    let either = ["kubernetes-1.34", "apiserver"].map(|name| made.join(name));
    let dirs = given.map_or(either.to_vec(), |dir| vec![dir]);
    let complete = |dir: &&PathBuf| {
        ["etcd", "kube-apiserver"]
            .iter()
            .all(|name| dir.join(name).exists())
    };
    let found = dirs.iter().find(complete).cloned();
    if found.is_none() {
        eprintln!("SKIPPED: no etcd and kube-apiserver in {dirs:?}; make apiserver builds them");
    }
    found
}

fn log(dir: &Path, name: &str) -> File {
    let path = dir.join(format!("{name}.log"));
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// Who is who: an authority, the server's certificate, the key of service accounts, one token.
fn identity(dir: &Path) {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.distinguished_name.push(DnType::CommonName, "test");
    let ca_key = key();
    write("ca.crt", &ca.self_signed(&ca_key).unwrap().pem());
    let names = ["localhost", "127.0.0.1", "kubernetes.default.svc"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names.to_vec()).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_key = key();
    let made = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key)).unwrap();
    write("server.crt", &made.pem());
    write("server.key", &leaf_key.serialize_pem());
    let accounts = key();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    write("tokens.csv", &format!("{ADMIN},admin,admin,\"system:masters\"\n"));
}
