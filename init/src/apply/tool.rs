//! Running the kernel's tools, and what their failures mean.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::InitError;

/// Longest part of a tool's complaint that is repeated.
const MAX_COMPLAINT: usize = 2000;

/// Runs a tool to its end with `input`, and returns what it printed.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, InitError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = lock_file() {
        command.env(LOCK_VARIABLE, path);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => InitError::ToolMissing(program.to_owned()),
        ErrorKind::PermissionDenied => {
            InitError::Privilege(format!("cannot run {program}: {error}"))
        }
        _ => InitError::Io(error),
    })?;
    if let Some(mut pipe) = child.stdin.take() {
        // A tool that gives up early says why on its standard error, which is read below.
        if let Err(error) = pipe.write_all(input.as_bytes())
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refusal(program, &String::from_utf8_lossy(&output.stderr), input))
}

/// Variable by which the iptables tools learn of another lock file.
const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";

/// Where the tools' lock goes if its usual place can't be written, as with a read-only root.
fn lock_file() -> Option<&'static str> {
    if std::env::var_os(LOCK_VARIABLE).is_some() {
        return None;
    }
    let writable = |path: &str| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable("/run") {
        return None;
    }
    ["/dev/shm", "/tmp"]
        .into_iter()
        .find(|path| writable(path))
        .map(|path| {
            if path == "/tmp" {
                "/tmp/outrider-xtables.lock"
            } else {
                "/dev/shm/outrider-xtables.lock"
            }
        })
}

fn refusal(program: &str, complaint: &str, input: &str) -> InitError {
    let text: String = complaint.trim().chars().take(MAX_COMPLAINT).collect();
    let lower = text.to_lowercase();
    let forbidden = ["permission denied", "operation not permitted", "must be root"];
    if forbidden.iter().any(|phrase| lower.contains(phrase)) {
        return InitError::Privilege(format!("{program}: {text}"));
    }
    let rule = blamed_line(&text).and_then(|number| input.lines().nth(number.saturating_sub(1)));
    let rule = rule.map(|line| format!("\n  {line}")).unwrap_or_default();
    InitError::Refused(format!("{program}: {text}{rule}"))
}

/// The line of the input that a restore tool complains about, as in "line 12 failed".
fn blamed_line(complaint: &str) -> Option<usize> {
    let (_, rest) = complaint.split_once("line")?;
    let digits: String = rest
        .trim_start_matches([':', ' '])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{blamed_line, refusal};
    use crate::InitError;

    #[test]
    fn finds_the_line_that_was_refused() {
        assert_eq!(blamed_line("iptables-restore: line 12 failed"), Some(12));
        assert_eq!(blamed_line("Error occurred at line: 3"), Some(3));
        assert_eq!(blamed_line("no such thing"), None);
    }

    #[test]
    fn tells_want_of_privilege_from_refusal() {
        let error = refusal("iptables-restore", "Fatal: Permission denied (you must be root)", "");
        assert!(matches!(error, InitError::Privilege(_)));
        let error = refusal("iptables-restore", "iptables-restore: line 2 failed", "*nat\n-A X\n");
        assert!(matches!(&error, InitError::Refused(text) if text.contains("-A X")), "{error}");
    }
}
