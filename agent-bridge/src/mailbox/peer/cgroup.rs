//! Which pod a process belongs to, by the text of its `/proc/<pid>/cgroup`.
//!
//! Kubelets and runtimes write the pod's uid into a component of the path in many ways:
//! `/kubepods/burstable/pod<uid>/<container>`, `/kubepods.slice/kubepods-pod<uid_>.slice/
//! cri-containerd-<container>.scope`, with dashes or underscores, with a drop-in parent before
//! it; static pods have a digest of 32 digits. All of them have `pod` right before the uid.

/// A pod's uid: its 32 hexadecimal digits, without what separates them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PodUid(u128);

/// The text names more than one pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SeveralPods;

/// Digits between separators in a UUID.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const DIGITS: usize = 32;

impl PodUid {
    /// Reads a UUID with dashes, with underscores or without either.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_whole = text.len() == DIGITS;
        let is_split = |separator| {
            let lengths = text.split(separator).map(str::len);
            lengths.eq(GROUPS)
        };
        if !is_whole && !is_split('-') && !is_split('_') {
            return None;
        }
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        // A sign would be read as a number's.
        let is_hex = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex
            .then(|| u128::from_str_radix(&digits, 16).ok())
            .flatten()
            .map(Self)
    }
}

/// The one pod that a cgroup text names, if it names any.
pub(super) fn pod_uid(text: &str) -> Result<Option<PodUid>, SeveralPods> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut found = None;
    for uid in paths.flat_map(|path| path.split('/')).filter_map(of_part) {
        if found.is_some_and(|known| known != uid) {
            return Err(SeveralPods);
        }
        found = Some(uid);
    }
    Ok(found)
}

fn of_part(part: &str) -> Option<PodUid> {
    let part = part
        .strip_suffix(".slice")
        .or_else(|| part.strip_suffix(".scope"))
        .unwrap_or(part);
    part.match_indices("pod").find_map(|(at, word)| {
        let is_word = part
            .get(..at)?
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_ascii_alphanumeric());
        let uid = part.get(at + word.len()..)?;
        let uid = uid.strip_prefix(['-', '_']).unwrap_or(uid);
        PodUid::parse(uid).filter(|_| is_word)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e8";
    const CONTAINER: &str = "f3d1a6c0b5e94278a1c2d3e4f5061728394a5b6c7d8e9f00112233445566778f";

    fn uid() -> Result<Option<PodUid>, SeveralPods> {
        Ok(Some(PodUid::parse(UID).unwrap()))
    }

    /// What is written by kubelets and runtimes of several kinds, with their separators.
    fn forms(uid: &str) -> Vec<String> {
        let under = uid.replace('-', "_");
        vec![
            format!("/kubepods/pod{uid}/{CONTAINER}"),
            format!("/kubepods/besteffort/pod{uid}/{CONTAINER}"),
            format!("/kubepods/burstable/pod{uid}"),
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{CONTAINER}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/\
                 cri-containerd-{CONTAINER}.scope"
            ),
            format!("/system.slice/kubelet.service/kubepods-pod{under}.slice/{CONTAINER}"),
            format!("/../../kubepods-burstable-pod{under}.slice/docker-{CONTAINER}.scope"),
            format!("/kubelet/kubepods/burstable/pod{uid}/{CONTAINER}/init.scope"),
            format!("/machine/pod-{uid}/{CONTAINER}"),
            format!("/kubepods/pod{}/{CONTAINER}", uid.replace('-', "")),
        ]
    }

    #[test]
    fn every_known_form_names_its_pod() {
        for form in forms(UID) {
            assert_eq!(pod_uid(&format!("0::{form}\n")), uid(), "{form}");
            let v1 = format!("3:cpu,cpuacct:{form}\n2:name=systemd:{form}\n0::/\n");
            assert_eq!(pod_uid(&v1), uid(), "{form}");
        }
    }

    #[test]
    fn what_is_no_pod_names_none() {
        for text in [
            "",
            "0::/\n",
            "garbage",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/machine.slice/libpod-f3d1a6c0b5e94278a1c2d3e4f5061728.scope",
            "0::/podman/0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e8",
            "0::/kubepods/pod0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e",
            "0::/kubepods/pod0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7eg",
            "0::/kubepods/pod+c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e8",
            "pod0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e8",
        ] {
            assert_eq!(pod_uid(text), Ok(None), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            prop_assert!(pod_uid(&text).is_ok_and(|found| found.is_none()));
        }

        #[test]
        fn any_uid_is_found_in_any_form(raw in any::<u128>(), form in 0usize..10) {
            let hex = format!("{raw:032x}");
            let (mut rest, mut parts) = (hex.as_str(), Vec::new());
            for length in GROUPS {
                let (part, after) = rest.split_at(length);
                parts.push(part);
                rest = after;
            }
            let text = format!("0::{}", forms(&parts.join("-"))[form]);
            prop_assert_eq!(pod_uid(&text), Ok(Some(PodUid(raw))));
        }

        #[test]
        fn two_pods_are_refused(other in any::<u128>(), a in 0usize..3, b in 0usize..10) {
            let other = forms(&format!("{other:032x}"))[a].clone();
            let text = format!("1:cpu:{other}\n0::{}\n", forms(UID)[b]);
            let nested = format!("0::{other}{}\n", forms(UID)[b]);
            prop_assert_eq!(pod_uid(&text), Err(SeveralPods));
            prop_assert_eq!(pod_uid(&nested), Err(SeveralPods));
        }
    }
}
