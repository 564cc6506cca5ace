//! The token that a bridge is shown over TCP.

use std::{fs::File, io::Read, path::Path};

use crate::client::Failure;

/// Largest token.
const MAX_TOKEN: u64 = 4096;

/// The token of `file`, else of the environment, if there is one.
///
/// On a command line it would be for everybody to read, so there is no option for the token itself.
pub(crate) fn find(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let token = match file {
        Some(path) => {
            let wrong =
                |error| Failure::Refused(format!("--token-file {}: {error}", path.display()));
            let mut text = String::new();
            let file = File::open(path).map_err(wrong)?;
            file.take(MAX_TOKEN)
                .read_to_string(&mut text)
                .map_err(wrong)?;
            Some(text)
        }
        None => std::env::var("OUTRIDER_TOKEN")
            .ok()
            .filter(|text| !text.is_empty()),
    };
    let Some(token) = token.map(|token| token.trim().to_owned()) else { return Ok(None) };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Refused("the token is not one line of visible characters".into()));
    }
    Ok(Some(token))
}
