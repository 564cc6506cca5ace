//! Mailboxes as CSI volumes: a kubelet's questions over its sockets, in a mount namespace of the test's own.

use std::{
    future::Future,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use outrider_api::kubelet::{
    csi::{
        GetPluginInfoRequest, NodeGetInfoRequest, NodePublishVolumeRequest,
        NodeUnpublishVolumeRequest, identity_client::IdentityClient, node_client::NodeClient,
    },
    registration::{InfoRequest, RegistrationStatus, registration_client::RegistrationClient},
};
use tokio::net::UnixStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::world::World;

const UID: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9aa";
const OTHER: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ab";

/// Runs on a thread with mounts of its own; without the right to that, says so.
fn apart<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        let none: Option<&str> = None;
        let alone = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none));
        if let Err(error) = alone {
            assert!(std::env::var_os("OUTRIDER_REQUIRE_NETNS").is_none(), "{error}");
            eprintln!("SKIPPED: no mount namespace: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test());
    };
    std::thread::spawn(run).join().unwrap();
}

async fn channel(socket: PathBuf) -> Channel {
    let connect = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://kubelet")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

fn world() -> (World, PathBuf) {
    let mut world = World::new();
    let kubelet = world.path().join("kubelet");
    world.set("OUTRIDER_BRIDGE_CSI", kubelet.display().to_string());
    world.set("OUTRIDER_BRIDGE_NODE", "here");
    (world, kubelet)
}

/// Where the kubelet wants a pod's volume; all but the last part is there.
fn target(kubelet: &Path, uid: &str) -> PathBuf {
    let volume = kubelet.join(format!("pods/{uid}/volumes/kubernetes.io~csi/outrider-mailbox"));
    std::fs::create_dir_all(&volume).unwrap();
    volume.join("mount")
}

fn publish(uid: &str, target: &Path) -> NodePublishVolumeRequest {
    let context = [("csi.storage.k8s.io/pod.uid", uid), ("csi.storage.k8s.io/ephemeral", "true")];
    NodePublishVolumeRequest {
        volume_id: "csi-of-the-kubelets-making".into(),
        target_path: target.display().to_string(),
        readonly: false,
        volume_context: context
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
    }
}

fn unpublish(target: &Path) -> NodeUnpublishVolumeRequest {
    let target_path = target.display().to_string();
    NodeUnpublishVolumeRequest { volume_id: "csi-of-the-kubelets-making".into(), target_path }
}

#[test]
fn the_kubelet_gets_to_know_the_driver_and_where_it_is() {
    apart(|| async {
        let (world, kubelet) = world();
        let bridge = world.start().await;
        let socket = kubelet.join("plugins_registry/mailbox.outrider.dev-reg.sock");
        let mode = socket.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else may ask");
        let mut known = RegistrationClient::new(channel(socket.clone()).await);
        let info = known.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(
            (info.r#type.as_str(), info.name.as_str()),
            ("CSIPlugin", "mailbox.outrider.dev")
        );
        let done = RegistrationStatus { plugin_registered: true, error: String::new() };
        known.notify_registration_status(done).await.unwrap();
        let driver = channel(info.endpoint.into()).await;
        let mut identity = IdentityClient::new(driver.clone());
        let named = identity.get_plugin_info(GetPluginInfoRequest {}).await;
        assert_eq!(named.unwrap().into_inner().name, "mailbox.outrider.dev");
        let mut node = NodeClient::new(driver);
        let info = node.node_get_info(NodeGetInfoRequest {}).await;
        assert_eq!(info.unwrap().into_inner().node_id, "here");
        drop((known, identity, node));
        bridge.stop().await;
        assert!(!socket.exists(), "the kubelet forgets a driver whose socket is gone");
    });
}

#[test]
fn a_pod_gets_its_own_mailbox_and_gives_it_back() {
    apart(|| async {
        let (world, kubelet) = world();
        let bridge = world.start().await;
        let socket = kubelet.join("plugins/mailbox.outrider.dev/csi.sock");
        let mut node = NodeClient::new(channel(socket).await);
        let target = target(&kubelet, UID);
        for _ in 0..2 {
            node.node_publish_volume(publish(UID, &target))
                .await
                .unwrap();
        }
        let mailbox = world.path().join("pods").join(UID);
        let (inside, outside) = (target.metadata().unwrap(), mailbox.metadata().unwrap());
        assert_eq!((inside.dev(), inside.ino()), (outside.dev(), outside.ino()));
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = |text: &str| mounts.lines().filter(|line| line.contains(text)).count();
        assert_eq!(line(target.to_str().unwrap()), 1, "once: {mounts}");
        let mount = mounts
            .lines()
            .find(|line| line.contains(target.to_str().unwrap()))
            .unwrap();
        for flag in ["nosuid", "nodev", "noexec"] {
            assert!(mount.contains(flag), "{mount}");
        }
        std::fs::write(mailbox.join("policy.json"), "").unwrap();
        assert!(target.join("policy.json").exists());
        for _ in 0..2 {
            node.node_unpublish_volume(unpublish(&target))
                .await
                .unwrap();
        }
        assert!(!target.exists() && !mailbox.exists());
        drop(node);
        bridge.stop().await;
    });
}

#[test]
fn what_is_no_place_for_that_pods_mailbox_is_refused() {
    apart(|| async {
        let (world, kubelet) = world();
        let bridge = world.start().await;
        let socket = kubelet.join("plugins/mailbox.outrider.dev/csi.sock");
        let mut node = NodeClient::new(channel(socket).await);
        let own = target(&kubelet, UID);
        let mut refused = vec![
            publish(OTHER, &own),
            publish(UID, Path::new("/etc")),
            publish(UID, &own.join("../mount")),
            publish("../..", &own),
            NodePublishVolumeRequest { readonly: true, ..publish(UID, &own) },
            NodePublishVolumeRequest { volume_context: Default::default(), ..publish(UID, &own) },
        ];
        refused.push(NodePublishVolumeRequest { volume_id: String::new(), ..publish(UID, &own) });
        for asked in refused {
            let status = node.node_publish_volume(asked.clone()).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{asked:?}");
        }
        let status = node
            .node_unpublish_volume(unpublish(Path::new("/etc")))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        // A link in the place of the directory is not followed, and what holds something is not covered.
        std::os::unix::fs::symlink("/etc", &own).unwrap();
        assert!(node.node_publish_volume(publish(UID, &own)).await.is_err());
        std::fs::remove_file(&own).unwrap();
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("something"), "").unwrap();
        let status = node
            .node_publish_volume(publish(UID, &own))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        drop(node);
        bridge.stop().await;
    });
}
