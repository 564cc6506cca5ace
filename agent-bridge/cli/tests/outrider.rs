//! The binary against a bridge made of canned answers.

#[cfg(test)]
mod cases {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        path::PathBuf,
        process::{Command, Output},
        thread,
    };

    /// Answers every request by the first entry whose text the request line holds.
    struct Canned {
        _dir: tempfile::TempDir,
        socket: PathBuf,
    }

    impl Canned {
        fn new(answers: &'static [(&'static str, u16, &'static str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("api.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), answers);
                }
            });
            Self { _dir: dir, socket }
        }

        fn run(&self, arguments: &[&str]) -> Output {
            let bridge = format!("unix:{}", self.socket.display());
            let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
            command
                .args(["--bridge", &bridge])
                .args(arguments)
                .output()
                .unwrap()
        }
    }

    fn answer(mut stream: std::os::unix::net::UnixStream, answers: &[(&str, u16, &str)]) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.extend(byte);
        }
        let line = String::from_utf8(request).unwrap();
        let found = answers.iter().find(|(text, ..)| line.contains(text));
        let (_, status, body) = found.unwrap_or(&("", 404, r#"{"error":"no such path"}"#));
        write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .unwrap();
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    const VIOLATIONS: &str = r#"[
        {"client":"default/intruder","server":"default/cache","client_ip":"10.0.0.9","server_ip":"10.0.0.2",
         "port":6379,"proto":"tcp","app":"not-checked","action":"deny","rule":0,"reason":"no \u001b[31mrule",
         "count":3,"first_seen":1,"last_seen":2,"from_a_newer_bridge":true},
        {"client":"external","server":"default/web","client_ip":"192.0.2.1","server_ip":"10.0.0.3","port":80,
         "proto":"tcp","app":"HTTP","action":"violate","rule":0,"reason":"r","count":1,"first_seen":1,"last_seen":2}]"#;

    #[test]
    fn json_is_one_object_a_line_in_the_documented_order() {
        let bridge = Canned::new(&[("/v1/violations", 200, VIOLATIONS)]);
        let output = bridge.run(&["violations", "--json"]);
        assert!(output.status.success());
        let lines: Vec<_> = text(&output.stdout).lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with(r#"{"client":"default/intruder","server":"default/cache""#));
        assert!(lines[0].contains(r#""count":3"#));
    }

    #[test]
    fn a_table_is_aligned_and_harmless_to_terminals() {
        let bridge = Canned::new(&[("/v1/violations", 200, VIOLATIONS)]);
        let output = bridge.run(&["violations"]);
        let table = text(&output.stdout);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].find("SERVER"), lines[1].find("default/cache"));
        assert_eq!(lines[0].find("SERVER"), lines[2].find("default/web"));
        assert!(!table.contains('\u{1b}') && table.contains("\\u{1b}"), "{table}");
    }

    #[test]
    fn an_empty_list_says_what_that_means() {
        let bridge = Canned::new(&[("/v1/rules", 200, "[]")]);
        assert!(text(&bridge.run(&["rules"]).stdout).starts_with("no rules yet"));
        assert_eq!(text(&bridge.run(&["rules", "--json"]).stdout), "");
    }

    #[test]
    fn a_mode_that_a_proxy_did_not_confirm_is_a_failure() {
        const PENDING: &str = r#"{"workload":"default/cache","group":"nv.cache.default","mode":"protect","pushed":1,"pending":1,"absent":0}"#;
        const REFUSED: &str = r#"{"workload":"default/shop","group":"nv.shop.default","mode":"protect","pushed":1,"pending":0,"refused":1,"absent":0}"#;
        const DONE: &str = r#"{"workload":"default/web","group":"nv.web.default","mode":"protect","pushed":2,"pending":0,"absent":1}"#;
        let bridge = Canned::new(&[
            ("cache/mode", 200, PENDING),
            ("shop/mode", 200, REFUSED),
            ("default%2Fweb/mode", 200, DONE),
        ]);
        let output = bridge.run(&["mode", "set", "cache", "protect"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("did not confirm"));
        let output = bridge.run(&["mode", "set", "shop", "protect"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("1 of the connected proxies refused the new rules"));
        let output = bridge.run(&["mode", "set", "default/web", "protect"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            text(&output.stdout),
            "default/web (nv.web.default) is in protect: pushed to 2 connected proxies, 1 not connected\n"
        );
    }

    #[test]
    fn exit_codes_tell_refusal_usage_and_absence_apart() {
        let bridge = Canned::new(&[("/v1/sessions", 404, r#"{"error":"no workload \"ghost\""}"#)]);
        let refused = bridge.run(&["sessions", "ghost"]);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(text(&refused.stderr), "outrider: no workload \"ghost\"\n");
        assert_eq!(bridge.run(&["mode", "set", "cache", "block"]).status.code(), Some(2));
        let absent = Command::new(env!("CARGO_BIN_EXE_outrider"))
            .args(["--bridge", "unix:/nonexistent/api.sock", "status"])
            .output()
            .unwrap();
        assert_eq!(absent.status.code(), Some(3));
        assert!(text(&absent.stderr).contains("is `outrider-agent-bridge bridge` running"));
    }

    #[test]
    fn what_is_in_the_way_is_said_with_what_to_do() {
        let run = |bridge: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
            command
                .args(["--bridge", bridge, "status"])
                .output()
                .unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("left.sock");
        drop(UnixListener::bind(&left).unwrap());
        let silent = dir.path().join("silent.sock");
        let listener = UnixListener::bind(&silent).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        for (bridge, code, said) in [
            ("unix:/nonexistent/api.sock", 3, "there is no such socket"),
            (&format!("unix:{}", left.display()), 3, "its bridge has ended, or is about to start"),
            ("http://127.0.0.1:1", 3, "nobody listens there"),
            (&format!("unix:{}", silent.display()), 3, "may be starting or stopping: try again"),
        ] {
            let output = run(bridge);
            assert_eq!(output.status.code(), Some(code), "{bridge}");
            assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        }
    }

    #[test]
    fn a_socket_of_others_is_said_and_so_is_a_missing_token() {
        let bridge = Canned::new(&[
            ("/v1/rules", 401, r#"{"error":"this needs a token"}"#),
            ("/v1/status", 403, r#"{"error":"the token may only read"}"#),
        ]);
        for (command, said) in [("rules", "needs a token"), ("status", "may only read")] {
            let output = bridge.run(&[command]);
            assert_eq!(output.status.code(), Some(4));
            assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        }
        // Root may use every socket, so this one asks as nobody.
        if !is_root() {
            return;
        }
        use std::os::unix::{fs::PermissionsExt, process::CommandExt};
        let open = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 0o755);
        let program = dir.path().join("outrider");
        std::fs::copy(env!("CARGO_BIN_EXE_outrider"), &program).unwrap();
        let socket = dir.path().join("api.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        open(&socket, 0o660);
        let run = || {
            let mut command = Command::new(&program);
            command
                .args(["--bridge", &format!("unix:{}", socket.display()), "status"])
                .uid(65534)
                .gid(65534)
                .output()
        };
        // The copy may still be open for writing in a child that another test has just forked.
        let output = loop {
            match run() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    thread::yield_now();
                }
                other => break other.unwrap(),
            }
        };
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("you may not use it"));
        assert!(text(&output.stderr).contains("use sudo"));
    }

    fn is_root() -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
    }

    #[test]
    fn a_list_is_read_page_by_page() {
        const ROW: &str = r#"{"id":1,"from":"a","to":"b","app":"any","ports":"any","action":"allow","learned":true,"evidence":{"sessions":1,"bytes":1,"clients":1,"first_seen":1,"last_seen":1,"samples":[]}}"#;
        let run = |arguments: &[&str], cursors: &'static [&'static str]| {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("api.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let asked = thread::spawn(move || {
                let mut lines = Vec::new();
                for cursor in cursors {
                    let (mut stream, _) = listener.accept().unwrap();
                    let head = head(&mut stream);
                    lines.push(head.lines().next().unwrap().to_owned());
                    let body = format!("[{ROW},{ROW}]");
                    let length = body.len();
                    write!(
                        stream,
                        "HTTP/1.1 200 -\r\n{cursor}content-length: {length}\r\n\r\n{body}"
                    )
                    .unwrap();
                }
                lines
            });
            let output = Command::new(env!("CARGO_BIN_EXE_outrider"))
                .args(["--bridge", &format!("unix:{}", socket.display()), "--json"])
                .args(arguments)
                .output()
                .unwrap();
            (text(&output.stdout).lines().count(), asked.join().unwrap())
        };
        const MORE: &str = "outrider-next-cursor: 0.61\r\n";
        let (rows, asked) = run(&["rules"], &[MORE, MORE, ""]);
        assert_eq!(rows, 6);
        assert_eq!(asked[0], "GET /v1/rules HTTP/1.1");
        assert_eq!(asked[2], "GET /v1/rules?cursor=0.61 HTTP/1.1");
        let (rows, asked) = run(&["rules", "--limit", "4"], &[MORE, MORE]);
        assert_eq!(rows, 4);
        assert_eq!(asked[0], "GET /v1/rules?limit=4 HTTP/1.1");
        assert_eq!(asked[1], "GET /v1/rules?limit=2&cursor=0.61 HTTP/1.1");
    }

    #[test]
    fn a_token_is_sent_over_tcp_only() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bridge = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            hear(stream)
        });
        let run = |bridge: &str, file: &str| {
            Command::new(env!("CARGO_BIN_EXE_outrider"))
                .env("OUTRIDER_TOKEN", "from-the-environment")
                .args(["--bridge", bridge, "--token-file", file, "rules", "--json"])
                .output()
                .unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert!(run(&bridge, file.to_str().unwrap()).status.success());
        assert!(
            asked
                .join()
                .unwrap()
                .contains("authorization: Bearer s3cret\r\n")
        );

        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = thread::spawn(move || hear(listener.accept().unwrap().0));
        let bridge = format!("unix:{}", socket.display());
        assert!(run(&bridge, file.to_str().unwrap()).status.success());
        assert!(!asked.join().unwrap().contains("authorization"));
        let missing = run(&bridge, "/nonexistent/token");
        assert_eq!(missing.status.code(), Some(1));
        assert!(text(&missing.stderr).contains("--token-file /nonexistent/token"));
    }

    /// The head of one request, answered by an empty list.
    fn hear(mut stream: impl Read + Write) -> String {
        let head = head(&mut stream);
        write!(stream, "HTTP/1.1 200 -\r\ncontent-length: 2\r\n\r\n[]").unwrap();
        head
    }

    /// Takes one request and gives its head.
    fn head(stream: &mut impl Read) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.extend(byte);
        }
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn following_goes_on_where_it_was_when_the_bridge_comes_back() {
        const ROW: &str = r#"{"client":"default/intruder","server":"default/cache","client_ip":"10.0.0.9","server_ip":"10.0.0.2","port":6379,"proto":"tcp","app":"Redis","action":"deny","rule":0,"reason":"r","count":3,"first_seen":1,"last_seen":2}"#;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = thread::spawn(move || {
            let mut heads = Vec::new();
            for events in [
                format!(": hello\n\nid: 5-1\nevent: violation\ndata: {ROW}\n\n"),
                format!(
                    "id: 5-9\nevent: gap\ndata: {{\"missed\":7,\"reason\":\"slow\"}}\n\nid: 5-10\nevent: violation\ndata: {ROW}\n\n"
                ),
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                heads.push(head(&mut stream));
                write!(stream, "HTTP/1.1 200 -\r\nconnection: close\r\n\r\n{events}").unwrap();
            }
            let (mut stream, _) = listener.accept().unwrap();
            heads.push(head(&mut stream));
            let said = r#"{"error":"this needs a token"}"#;
            write!(stream, "HTTP/1.1 401 -\r\ncontent-length: {}\r\n\r\n{said}", said.len())
                .unwrap();
            heads
        });
        let output = Command::new(env!("CARGO_BIN_EXE_outrider"))
            .args(["--bridge", &format!("unix:{}", socket.display())])
            .args(["violations", "--follow", "--workload", "cache"])
            .output()
            .unwrap();
        let heads = asked.join().unwrap();
        assert!(heads[0].starts_with("GET /v1/events?kinds=violation&workload=cache HTTP/1.1\r\n"));
        assert!(!heads[0].contains("last-event-id"));
        assert!(heads[1].contains("last-event-id: 5-1\r\n"), "{}", heads[1]);
        assert!(heads[2].contains("last-event-id: 5-10\r\n"), "{}", heads[2]);
        let rows: Vec<_> = text(&output.stdout).lines().collect();
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows[0].starts_with("CLIENT") && rows[2].starts_with("default/intruder"));
        assert!(text(&output.stderr).contains("7 events were missed: slow"));
        assert!(text(&output.stderr).ends_with("this needs a token\n"));
        assert_eq!(output.status.code(), Some(4));
    }

    #[test]
    fn following_a_bridge_that_never_was_there_is_a_failure() {
        let output = Command::new(env!("CARGO_BIN_EXE_outrider"))
            .args(["--bridge", "unix:/nonexistent/api.sock", "flows", "-f"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn completion_knows_the_commands_of_every_shell() {
        for shell in ["bash", "zsh", "fish"] {
            let output = Command::new(env!("CARGO_BIN_EXE_outrider"))
                .args(["completion", shell])
                .output()
                .unwrap();
            assert!(output.status.success());
            let script = text(&output.stdout);
            assert!(script.contains("conversations") && script.contains("follow"), "{shell}");
        }
    }

    #[test]
    fn filters_are_passed_on() {
        const FLOWS: &str = "/v1/flows?workload=default%2Fcache&app=redis&since=17&limit=5 ";
        let bridge = Canned::new(&[(FLOWS, 200, "[]")]);
        let filters = ["--workload", "default/cache", "--app", "redis", "--since", "17"];
        let output = bridge.run(&[&["flows", "--limit", "5"], &filters[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(bridge.run(&["flows", "--limit", "0"]).status.code(), Some(2));
        assert_eq!(
            bridge
                .run(&["flows", "--follow", "--limit", "1"])
                .status
                .code(),
            Some(2)
        );
    }

    #[test]
    fn policy_that_was_learned_is_exported_and_compared() {
        const RULES: &str = r#"[{"id":10001,"from":"nv.shop.default","to":"nv.cache.default","app":"Redis",
            "ports":"tcp/6379","action":"allow","learned":true,"evidence":{"sessions":12,"bytes":1,"clients":1,
            "first_seen":1,"last_seen":1795667280,"samples":[]}}]"#;
        const WORKLOADS: &str = r#"[
            {"name":"default/cache","uid":"c","group":"nv.cache.default","mode":"protect","addresses":[],
             "labels":{"app":"cache"},"mac":"","proxy":"connected","policy_version":1,"rules":1,"connects":1},
            {"name":"default/shop","uid":"s","group":"nv.shop.default","mode":"discover","addresses":[],
             "labels":{},"mac":"","proxy":"connected","policy_version":1,"rules":1,"connects":1}]"#;
        let bridge = Canned::new(&[("/v1/rules", 200, RULES), ("/v1/workloads", 200, WORKLOADS)]);
        let output = bridge.run(&["policy", "export"]);
        let (policy, notes) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{notes}");
        assert!(policy.starts_with("apiVersion: outrider.dev/v1alpha1\nkind: WorkloadMode\n"));
        assert!(notes.contains("rules of nv.shop.default are left out"), "{notes}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.yaml");
        std::fs::write(&file, policy).unwrap();
        let file = file.to_str().unwrap();
        let same = bridge.run(&["policy", "diff", file, "learned"]);
        assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), ""));
        std::fs::write(file, policy.replace("Protect", "Monitor")).unwrap();
        let other = bridge.run(&["policy", "diff", file, "learned"]);
        assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
        let expected = "~ WorkloadMode/default/cache\n    - mode: Monitor\n    + mode: Protect\n";
        assert_eq!(text(&other.stdout), expected);
        std::fs::write(file, "a: &a [*a]").unwrap();
        let wrong = bridge.run(&["policy", "diff", file, "learned"]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(text(&wrong.stderr).contains(file), "{}", text(&wrong.stderr));
        let absent = bridge.run(&["policy", "diff", "/nonexistent", "learned"]);
        assert_eq!(absent.status.code(), Some(2));
    }

    const ACCEPTED: &str = r#"{"written":true,"path":"/etc/outrider/policy.yaml","objects":[
        {"object":"WorkloadMode/default/all","accepted":true,"reason":"NoWorkloads","field":"","message":"no pod matches now"}]}"#;
    const REFUSED: &str = r#"{"written":false,"path":"/etc/outrider/policy.yaml","objects":[
        {"object":"WorkloadMode/default/all","accepted":false,"reason":"Invalid","field":"spec.mode",
         "message":"must be one of Discover, Monitor, Protect"}]}"#;
    const LIVE: &str = r#"{"policy":""}"#;
    const MODE: &str = "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadMode\nmetadata: {name: all, namespace: default}\nspec: {mode: Protect}\n";

    fn mode_file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), MODE).unwrap();
        file
    }

    #[test]
    fn an_import_shows_what_is_wrong_and_what_changes() {
        let file = mode_file();
        let path = file.path().to_str().unwrap();
        let bridge = Canned::new(&[("PUT /v1/policy", 200, ACCEPTED), ("/v1/policy", 200, LIVE)]);
        let output = bridge.run(&["policy", "import", path]);
        let (said, notes) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{notes}");
        assert_eq!(
            said,
            "+ WorkloadMode/default/all\n    + mode: Protect\n/etc/outrider/policy.yaml has these objects (1): they are in \
             force within a second\n"
        );
        let note = "outrider: WorkloadMode/default/all: no pod matches now (NoWorkloads)\n";
        assert!(notes.starts_with(note), "{notes}");
        let dry = bridge.run(&["policy", "import", path, "--dry-run"]);
        assert!(text(&dry.stdout).ends_with("nothing was written\n"));
        let bridge = Canned::new(&[("PUT /v1/policy", 200, REFUSED)]);
        let output = bridge.run(&["policy", "import", path]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
        let why = "WorkloadMode/default/all: spec.mode: must be one of Discover";
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }

    #[test]
    fn a_replay_fails_if_something_that_happened_would_be_denied() {
        const DENIED: &str = r#"{"judged":7,"unjudged":1,"left_out":0,"objects":[],"changed":[
            {"client":"default/shop","server":"default/cache","app":"Redis","proto":"tcp","port":6379,"sessions":12,
             "last_seen":2,"before":"allow","after":"deny","at":"default/cache","rule":""}]}"#;
        const SAME: &str = r#"{"judged":7,"unjudged":0,"left_out":0,"objects":[],"changed":[]}"#;
        let file = mode_file();
        let path = file.path().to_str().unwrap();
        let bridge = Canned::new(&[("/v1/policy/replay", 200, DENIED)]);
        let output = bridge.run(&["policy", "replay", path]);
        let (said, notes) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("default/cache") && said.contains("default\n"), "{said}");
        assert!(notes.contains("7 conversations were judged; 1 could not be"), "{notes}");
        assert!(notes.contains("would be denied, 12 sessions so far"), "{notes}");
        let output = bridge.run(&["policy", "replay", path, "--json"]);
        assert!(text(&output.stdout).starts_with(r#"{"client":"default/shop""#));
        let bridge = Canned::new(&[("/v1/policy/replay", 200, SAME)]);
        let output = bridge.run(&["policy", "replay", path, "--alone", "--mode", "protect"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).starts_with("nothing that was seen"));
        assert_eq!(
            bridge
                .run(&["policy", "replay", "/nonexistent"])
                .status
                .code(),
            Some(2)
        );
    }
}
