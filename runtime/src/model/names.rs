//! What names, paths and secrets may look like. One rule for each, whoever brings it in.

/// Longest name of a workflow, in characters.
const NAME_MAX_CHARS: usize = 200;
const PATH_MAX_CHARS: usize = 200;
const SECRET_MAX_CHARS: usize = 1024;

/// Longest and shortest value of a secret that requests carry. A shorter one could not be taken out of what a target sends
/// back.
const VALUE_MAX_BYTES: usize = 4096;
const VALUE_MIN_BYTES: usize = 8;

/// Says what is wrong with `name` as the name of a workflow, if anything.
#[must_use]
pub fn workflow_name_fault(name: &str) -> Option<String> {
    let length = name.chars().count();
    let bad = length == 0 || length > NAME_MAX_CHARS || name.chars().any(char::is_control);
    bad.then(|| format!("must be 1 to {NAME_MAX_CHARS} characters without control characters"))
}

/// Says what is wrong with `path` as the last part of a webhook's URL, if anything: it is what may stand in a part of a
/// URL's path as it is (RFC 3986 section 3.3), not beginning with a dot, since `.` and `..` have a meaning of their own.
#[must_use]
pub fn endpoint_path_fault(path: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:@!$&'()*+,;=".contains(c);
    let bad = path.is_empty() || path.len() > PATH_MAX_CHARS || path.starts_with('.') || !path.chars().all(fits);
    let rule = "characters A-Z a-z 0-9 and - . _ ~ : @ ! $ & ' ( ) * + , ; = and not begin with a dot";
    bad.then(|| format!("must be 1 to {PATH_MAX_CHARS} {rule}"))
}

/// Says what is wrong with `secret` as the secret of a webhook, if anything: every client must be able to send it as the
/// value of a header.
#[must_use]
pub fn secret_fault(secret: &str) -> Option<String> {
    let printable = secret.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let bad = secret.is_empty() || secret.len() > SECRET_MAX_CHARS || !printable || secret.trim() != secret;
    let rule = "printable ASCII characters, without white space at either end";
    bad.then(|| format!("must be 1 to {SECRET_MAX_CHARS} {rule}"))
}

/// Says what is wrong with `value` as the value of a secret that requests carry, if anything.
#[must_use]
pub fn secret_value_fault(value: &str) -> Option<String> {
    let fits = (VALUE_MIN_BYTES..=VALUE_MAX_BYTES).contains(&value.len());
    let visible = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let rule = "visible ASCII characters, without a space at either end";
    let sound = fits && visible && value.trim() == value;
    (!sound).then(|| format!("must be {VALUE_MIN_BYTES} to {VALUE_MAX_BYTES} {rule}"))
}
