//! As much of an API server as says which pods a node has.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Result;
use outrider_tests::{World, netns::Namespace};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

/// The one pod that it knows, and those who wait for news of it.
#[derive(Debug, Default)]
struct Shared {
    pod: Mutex<Value>,
    changed: Condvar,
}

/// An API server that runs until the test's process ends.
#[derive(Debug)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Api {
    /// Starts it on a node, with a pod.
    pub(crate) fn start(node: &Namespace, pod: Value) -> Result<Self> {
        let listener = node.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { pod: Mutex::new(pod), ..Shared::default() });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // Who asks hangs up when it has heard enough.
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(Self { shared, address })
    }

    /// Says something else of the pod from now on.
    pub(crate) fn put(&self, pod: Value) {
        *self.shared.pod.lock() = pod;
        self.shared.changed.notify_all();
    }

    /// The file by which a bridge finds it.
    pub(crate) fn kubeconfig(&self, world: &World) -> Result<String> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "it", "user": {} }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
        });
        let path = world.dir().join("kubeconfig");
        std::fs::write(&path, config.to_string())?;
        Ok(path.display().to_string())
    }
}

/// Answers lists one after the other; a watch is the last thing that is said.
fn serve(stream: &TcpStream, shared: &Shared) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    loop {
        let mut head = Vec::new();
        for line in lines.by_ref() {
            match line? {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let Some(asked) = head.first() else { return Ok(()) };
        let of_pods = asked.starts_with("GET /api/v1/pods?");
        if asked.contains("watch=true") {
            return watch(stream, shared, of_pods);
        }
        let items: Vec<_> = of_pods
            .then(|| shared.pod.lock().clone())
            .into_iter()
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items,
            "metadata": { "resourceVersion": "1" } });
        let body = list.to_string();
        let length = body.len();
        write!(
            &mut &*stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
    }
}

fn watch(mut stream: &TcpStream, shared: &Shared, of_pods: bool) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut pod = shared.pod.lock();
    loop {
        let event = json!({ "type": "MODIFIED", "object": *pod });
        let line = if of_pods { format!("{event}\n") } else { "\n".to_owned() };
        stream.write_all(line.as_bytes())?;
        // Now and then, so that a hung up connection is noticed.
        shared.changed.wait_for(&mut pod, Duration::from_secs(1));
    }
}
