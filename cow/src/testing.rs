//! What several unit tests need.

/// Whether this test may do what only root can; says why not, and fails where CI promised root.
pub(crate) fn is_root() -> bool {
    can("needs root", rustix::process::geteuid().is_root())
}

/// Whether a condition of this machine holds; says what is missing when it does not, and fails if
/// the environment variable `CI` is `true`.
pub(crate) fn can(what: &str, holds: bool) -> bool {
    if !holds {
        let promised = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!promised, "skipped on a machine that promised to run every test: {what}");
        println!("skipped: {what}");
    }
    holds
}
