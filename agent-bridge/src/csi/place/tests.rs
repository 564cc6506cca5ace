use super::*;

const UID: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9aa";
const OTHER: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ab";

fn target(uid: &str) -> String {
    format!("/kubelet/pods/{uid}/volumes/kubernetes.io~csi/outrider-mailbox/mount")
}

#[test]
fn only_the_place_of_that_pods_mailbox_is_taken() {
    let places = Places::new("/nowhere/pods".into(), "/kubelet".into());
    assert_eq!(places.owner(&target(UID)).unwrap(), UID);
    for path in [
        "".to_owned(),
        "/".into(),
        "/etc".into(),
        "kubelet/pods".into(),
        target(".."),
        target("web"),
        format!("{}/more", target(UID)),
        target(UID).replace("/mount", "/mount/.."),
        target(UID).replace("/mount", "/./mount"),
        target(UID).replace("/pods/", "/pods//"),
        target(UID).replace("/kubelet/", "/kubelet/../kubelet/"),
        target(UID).replace("outrider-mailbox", "another-volume"),
        target(UID).replace("kubernetes.io~csi", "kubernetes.io~empty-dir"),
    ] {
        assert!(matches!(places.owner(&path), Err(PlaceError::Elsewhere(_))), "{path}");
        assert!(places.unpublish(&path).is_err(), "{path}");
    }
    let another = places.publish(OTHER, &target(UID));
    assert!(matches!(another, Err(PlaceError::Elsewhere(_))), "another pod's place");
}
