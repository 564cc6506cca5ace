//! Real redirect rules in a network namespace of the test's own: what the listener says about
//! connections that they brought.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
};

use outrider_capture::{Accepted, CaptureMode, Listener};
use tokio::net::TcpStream;

/// Runs `test` on a thread that sits in a fresh network namespace, inside a runtime. Without the
/// privilege the test is skipped, which `OUTRIDER_REQUIRE_NETNS=1` turns into a failure.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let ran = thread::spawn(move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            return Err(error.to_string());
        }
        run("ip", &["link", "set", "lo", "up"], "");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
        Ok(())
    })
    .join()
    .unwrap();
    if let Err(why) = ran {
        assert_ne!(
            std::env::var("OUTRIDER_REQUIRE_NETNS").as_deref(),
            Ok("1"),
            "no network namespace: {why}"
        );
        eprintln!("SKIPPED: no network namespace: {why}");
    }
}

/// Runs a tool in this thread's namespace.
fn run(tool: &str, args: &[&str], input: &str) {
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{tool} {args:?}");
}

fn redirect_to(port: u16) {
    let rules =
        format!("*nat\n-A OUTPUT -p tcp --dport 8080 -j REDIRECT --to-ports {port}\nCOMMIT\n");
    run("iptables-restore", &[], &rules);
    run("ip6tables-restore", &[], &rules);
}

async fn dial(listener: &Listener, to: &str) -> (TcpStream, Accepted) {
    let target: SocketAddr = to.parse().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
    (client.unwrap(), accepted.unwrap())
}

#[test]
fn redirect_tells_the_original_destination_of_both_families() {
    in_namespace(|| async {
        let listener = Listener::bind(0, CaptureMode::Redirect).unwrap();
        redirect_to(listener.port());
        for to in ["127.0.0.9:8080", "[::1]:8080"] {
            let (client, accepted) = dial(&listener, to).await;
            assert_eq!(accepted.by, Some(CaptureMode::Redirect), "{to}");
            assert_eq!(accepted.original.addr().to_string(), to);
            assert_eq!(accepted.peer, client.local_addr().unwrap());
            assert_eq!(accepted.local.port(), listener.port());
        }
        let direct = format!("127.0.0.1:{}", listener.port());
        let (_client, accepted) = dial(&listener, &direct).await;
        assert_eq!(accepted.by, None, "conntrack is active, but nothing was rewritten");
    });
}

#[test]
fn tproxy_finds_the_destination_in_the_local_address() {
    in_namespace(|| async {
        let listener = Listener::bind(0, CaptureMode::Tproxy).unwrap();
        let port = listener.port();
        let rules = format!(
            "*mangle\n\
             -A OUTPUT -p tcp --dport 8080 -j MARK --set-mark 0x6eb\n\
             -A PREROUTING -p tcp --dport 8080 -m mark --mark 0x6eb \
             -j TPROXY --on-port {port} --tproxy-mark 0x6eb\n\
             COMMIT\n"
        );
        run("iptables-restore", &[], &rules);
        run("ip6tables-restore", &[], &rules);
        for family in ["-4", "-6"] {
            run("ip", &[family, "rule", "add", "fwmark", "0x6eb", "lookup", "171"], "");
            run(
                "ip",
                &[family, "route", "add", "local", "default", "dev", "lo", "table", "171"],
                "",
            );
        }
        run("ip", &["addr", "add", "10.9.0.1/32", "dev", "lo"], "");
        run("ip", &["addr", "add", "fd09::1/128", "dev", "lo"], "");
        for to in ["10.9.0.1:8080", "[fd09::1]:8080"] {
            let (_client, accepted) = dial(&listener, to).await;
            assert_eq!(accepted.by, Some(CaptureMode::Tproxy), "{to}");
            assert_eq!(accepted.original.addr().to_string(), to);
            assert_eq!(accepted.local.to_string(), to);
        }
        let direct = format!("127.0.0.1:{port}");
        let (_client, accepted) = dial(&listener, &direct).await;
        assert_eq!(accepted.by, None, "dialled straight at the listener");
    });
}
