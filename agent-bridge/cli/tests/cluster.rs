//! The binary as `kubectl outrider`, with a kubectl and bridges made of canned answers.

#[cfg(test)]
mod cases {
    use std::{
        fs,
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        os::unix::fs::symlink,
        path::Path,
        process::{Command, Output},
        thread,
        time::Duration,
    };

    /// What stands for kubectl. It is not written here: it could not be run while a child of another test still holds
    /// it open.
    const KUBECTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/kubectl");

    struct World(tempfile::TempDir);

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            symlink(KUBECTL, dir.path().join("kubectl")).unwrap();
            for (path, text) in files {
                fs::write(dir.path().join(path.replace('/', "_")), text).unwrap();
            }
            Self(dir)
        }

        /// A bridge behind a pod.
        fn bridge(self, pod: &str, answer: &'static str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let file = |what: &str| self.0.path().join(format!("{what}.{pod}"));
            fs::write(file("port"), port.to_string()).unwrap();
            let (met, heard, unheard) = (file("met"), file("heard"), file("unheard"));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    // The directory is gone when the test is over.
                    drop(fs::write(&met, ""));
                    while !heard.exists() && !unheard.exists() && met.exists() {
                        thread::sleep(Duration::from_millis(20));
                    }
                    if unheard.exists() {
                        continue;
                    }
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while lines
                        .next()
                        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                    {
                    }
                    let length = answer.len();
                    // Whoever has gone does not hear it.
                    drop(write!(
                        stream,
                        "HTTP/1.1 200 -\r\ncontent-length: {length}\r\n\r\n{answer}"
                    ));
                }
            });
            self
        }

        fn run(&self, arguments: &[&str]) -> Output {
            Command::new(env!("CARGO_BIN_EXE_outrider"))
                .args(["--cluster", "--context", "test"])
                .args(arguments)
                .env("KUBECTL", self.0.path().join("kubectl"))
                .output()
                .unwrap()
        }

        fn written(&self) -> String {
            fs::read_to_string(self.0.path().join("written")).unwrap()
        }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    const BRIDGES: (&str, &str) = (
        "/api/v1/namespaces/outrider/pods.bridges",
        r#"{"items":[
            {"metadata":{"name":"one"},"spec":{"nodeName":"n1"},"status":{"phase":"Running"}},
            {"metadata":{"name":"two"},"spec":{"nodeName":"n2"},"status":{"phase":"Running"}},
            {"metadata":{"name":"three"},"spec":{"nodeName":"n3"},"status":{"phase":"Running"}},
            {"metadata":{"name":"four"},"spec":{"nodeName":"n4"},"status":{"phase":"Pending"}}]}"#,
    );

    macro_rules! conversation {
        ($client:literal, $sessions:literal) => {
            concat!(
                r#"{"client":""#,
                $client,
                r#"","server":"shop/cache","app":"Redis","proto":"tcp","port":6379,
                "sessions":"#,
                $sessions,
                r#","bytes":1,"violations":0,"threats":0,"action":"allow","first_seen":1,
                "last_seen":2,"names":[]}"#
            )
        };
    }

    #[test]
    fn conversations_of_all_nodes_are_one_list() {
        let world = World::new(&[BRIDGES])
            .bridge("one", concat!("[", conversation!("shop/web", "3"), "]"))
            .bridge(
                "two",
                concat!(
                    "[",
                    conversation!("shop/web", "5"),
                    ",",
                    conversation!("shop/job", "1"),
                    "]"
                ),
            );
        let output = world.run(&["conversations", "--json"]);
        let (lines, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(lines.lines().count(), 2, "{lines}{said}");
        assert!(
            lines.contains(r#""client":"shop/job""#) && lines.contains(r#""sessions":5"#),
            "{lines}"
        );
        assert!(
            said.contains("node n3 is not in this: kubectl: error: lost connection to three"),
            "{said}"
        );
        let output = world.run(&["conversations", "--json", "--node", "n1"]);
        assert!(text(&output.stdout).contains(r#""sessions":3"#));
        let output = world.run(&["flows", "--follow"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("name one with --node: n1, n2, n3"));
    }

    #[test]
    fn a_mode_becomes_an_object_for_the_pods_of_a_service() {
        let world = World::new(&[(
            "/api/v1/namespaces/shop/services/cache",
            r#"{"spec":{"selector":{"app":"cache"}}}"#,
        )]);
        let output = world.run(&["mode", "set", "shop/cache", "protect"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("kubectl -n shop get workloadmode cache"));
        let written = world.written();
        assert!(written.contains(r#""mode":"Protect""#), "{written}");
        assert!(written.contains(r#""podSelector":{"matchLabels":{"app":"cache"}}"#), "{written}");
        assert!(
            world
                .run(&["mode", "set", "shop", "monitor"])
                .status
                .success()
        );
        assert!(
            world.written().contains(r#""name":"all""#) && !world.written().contains("podSelector")
        );
        let output = world.run(&["mode", "set", "shop/nobody", "protect"]);
        assert!(
            text(&output.stderr).contains("neither a Service nor a pod nobody in namespace shop")
        );
    }

    #[test]
    fn pods_without_a_proxy_are_listed_with_the_reason() {
        let world = World::new(&[
            (
                "/api/v1/namespaces",
                r#"{"items":[{"metadata":{"name":"shop","labels":{"outrider.dev/injection":"enforced"}}}]}"#,
            ),
            (
                "/api/v1/namespaces/shop/pods",
                r#"{"items":[{"metadata":{"name":"old"},"spec":{"nodeName":"n1","containers":[{"name":"app"}]}},
                    {"metadata":{"name":"new"},"spec":{"initContainers":[{"name":"outrider-proxy"}]}}]}"#,
            ),
        ]);
        let output = world.run(&["coverage"]);
        let table = text(&output.stdout);
        assert!(table.contains("shop") && table.contains("older than the label"), "{table}");
        assert!(!table.contains("new "), "{table}");
    }

    #[test]
    fn a_check_names_what_is_wrong_and_fails() {
        let world = World::new(&[
            BRIDGES,
            ("/api/v1/namespaces", r#"{"items":[]}"#),
            (
                "/apis/apps/v1/namespaces/outrider/deployments/outrider-webhook",
                r#"{"status":{"replicas":2,"readyReplicas":1},"spec":{"template":{"spec":{"containers":[{}]}}}}"#,
            ),
            (
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider",
                r#"{"webhooks":[{"name":"enforced","clientConfig":{"caBundle":""}}]}"#,
            ),
            ("/api/v1/namespaces/outrider/pods.others", r#"{"items":[{"metadata":{"name":"w"}}]}"#),
            (
                "/api/v1/namespaces/outrider/pods/w:15190/proxy/metrics",
                "outrider_webhook_certificate_expiry_seconds 1000\n",
            ),
        ]);
        let output = world.run(&["check"]);
        let table = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{table}{}", text(&output.stderr));
        for line in [
            "1 of 2 ready",
            "there is no outrider-controller in outrider",
            "not there or not established: workloadgroups",
            "without a caBundle: enforced",
            "it is not there: nobody asks the webhook",
            "a pod of default would go without",
            "expired",
        ] {
            assert!(table.contains(line), "{line}: {table}");
        }
    }

    #[test]
    fn what_is_missing_or_forbidden_is_said() {
        let world = World::new(&[("/version", r#"{"gitVersion":"v1.34.4"}"#)]);
        let output = world.run(&["check", "--pre"]);
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("nodes is forbidden"));
        fs::remove_file(world.0.path().join("kubectl")).unwrap();
        let output = world.run(&["status"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("install it, or name it in KUBECTL"));
        let plain = Command::new(env!("CARGO_BIN_EXE_outrider"))
            .arg("coverage")
            .output()
            .unwrap();
        assert_eq!(plain.status.code(), Some(2));
        let link = world.0.path().join("kubectl-outrider");
        std::os::unix::fs::symlink(Path::new(env!("CARGO_BIN_EXE_outrider")), &link).unwrap();
        let plugin = Command::new(&link)
            .arg("coverage")
            .env("KUBECTL", "/nowhere/kubectl")
            .output()
            .unwrap();
        assert!(text(&plugin.stderr).contains("/nowhere/kubectl"), "{}", text(&plugin.stderr));
    }

    #[test]
    fn a_policy_is_applied_after_a_dry_run_and_what_changes_is_shown() {
        let none = r#"{"items":[]}"#;
        let modes = r#"{"items":[{"metadata":{"name":"all","namespace":"shop","uid":"u"},"spec":{"mode":"Monitor"}}]}"#;
        let at = |plural: &str| format!("/apis/outrider.dev/v1alpha1/{plural}");
        let lists = [
            "workloadgroups",
            "clusterworkloadgroups",
            "networkrules",
            "clusternetworkrules",
            "clusterworkloadmodes",
        ];
        let mut files: Vec<_> = lists.into_iter().map(|plural| (at(plural), none)).collect();
        files.push((at("workloadmodes"), modes));
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), *text))
            .collect();
        let world = World::new(&files);
        let file = tempfile::NamedTempFile::new().unwrap();
        let mode = "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadMode\nmetadata: {name: all, namespace: shop}\nspec: {mode: Protect}\n";
        fs::write(file.path(), mode).unwrap();
        let path = file.path().to_str().unwrap();
        let output = world.run(&["policy", "import", path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(
            said.starts_with("~ WorkloadMode/shop/all\n    - mode: Monitor\n    + mode: Protect\n"),
            "{said}"
        );
        assert!(world.written().contains(r#""kind":"List""#), "{}", world.written());
        let output = world.run(&["policy", "diff", "live", path]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(world.run(&["policy", "replay", path]).status.code(), Some(2));
    }
}
