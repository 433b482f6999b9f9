//! What a container runs: the image's config with the client's changes, by Docker's rules.

use image::RunConfig;
use layerd_api::ContainerSpec;

use super::NewContainer;
use crate::error::{Error, ErrorKind, Result};

/// Where programs are looked for when neither image nor client says it, as in Docker.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Merges an image's config with a request.
///
/// # Errors
/// `InvalidArgument` when neither says what to run, or for a nameless variable.
pub(super) fn merge(image: &RunConfig, new: &NewContainer) -> Result<ContainerSpec> {
    let or_image = |own: &String, image: &String| {
        if own.is_empty() { image.clone() } else { own.clone() }
    };
    Ok(ContainerSpec {
        args: args(image, new)?,
        env: env(&image.env, &new.spec.env)?,
        cwd: or_image(&new.spec.cwd, &image.working_dir),
        user: or_image(&new.spec.user, &image.user),
        stop_signal: or_image(&new.spec.stop_signal, &image.stop_signal),
        ..new.spec.clone()
    })
}

/// Entrypoint and command. A client's entrypoint also discards the image's command, which belongs to
/// the image's entrypoint; an empty one merely takes the image's entrypoint away.
fn args(image: &RunConfig, new: &NewContainer) -> Result<Vec<String>> {
    let replaced = new.entrypoint.as_ref().is_some_and(|entrypoint| !entrypoint.is_empty());
    let mut args = new.entrypoint.as_ref().unwrap_or(&image.entrypoint).clone();
    let keeps = new.command.is_empty() && !replaced;
    let command = if keeps { &image.cmd } else { &new.command };
    // `--entrypoint ""` comes as one empty word.
    if args.first().is_some_and(String::is_empty) {
        args.clear();
    }
    args.extend_from_slice(command);
    if args.is_empty() {
        let reason = "neither the image nor the request says what to run";
        let kind = ErrorKind::InvalidArgument;
        return Err(Error::refused("create container of image", &new.image, reason, kind));
    }
    Ok(args)
}

/// The image's variables in their places with the client's values, then the client's others. A
/// client's name without `=` takes the variable away.
fn env(image: &[String], own: &[String]) -> Result<Vec<String>> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut merged: Vec<String> = Vec::new();
    for variable in image.iter().chain(own) {
        let key = name(variable);
        if key.is_empty() {
            let reason = "a variable without a name";
            let kind = ErrorKind::InvalidArgument;
            return Err(Error::refused("set variable", variable, reason, kind));
        }
        let place = merged.iter().position(|other| name(other) == key);
        match (place, variable.contains('=')) {
            (Some(place), true) => merged[place].clone_from(variable),
            (Some(place), false) => drop(merged.remove(place)),
            (None, true) => merged.push(variable.clone()),
            (None, false) => {}
        }
    }
    if !merged.iter().any(|variable| name(variable) == "PATH") {
        merged.insert(0, DEFAULT_PATH.to_owned());
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_command_follow_docker() {
        // image entrypoint, image cmd, own entrypoint, own command, what runs
        let cases = [
            (None, Some("sh"), None, "", Some("sh")),
            (None, Some("sh -l"), None, "ls /", Some("ls /")),
            (Some("init"), Some("serve"), None, "", Some("init serve")),
            (Some("init"), Some("serve"), None, "stop", Some("init stop")),
            (Some("init"), Some("serve"), Some("sh"), "", Some("sh")),
            (Some("init"), Some("serve"), Some("sh"), "-c x", Some("sh -c x")),
            (Some("init"), Some("serve"), Some(""), "", Some("serve")),
            (Some("init"), Some("serve"), Some(""), "ls", Some("ls")),
            (Some("init"), None, None, "", Some("init")),
            (None, None, None, "", None),
            (Some("init"), None, Some(""), "", None),
        ];
        for (entrypoint, cmd, own, command, expected) in cases {
            let image = RunConfig {
                entrypoint: entrypoint.map(words).unwrap_or_default(),
                cmd: cmd.map(words).unwrap_or_default(),
                ..RunConfig::default()
            };
            let new = NewContainer {
                entrypoint: own.map(words),
                command: words(command),
                ..NewContainer::default()
            };
            let got = args(&image, &new).ok();
            let case = (entrypoint, cmd, own, command);
            assert_eq!(got, expected.map(words), "{case:?}");
        }
        let image = RunConfig { cmd: words("serve"), ..RunConfig::default() };
        let one_empty_word = Some(vec![String::new()]);
        let new = NewContainer { entrypoint: one_empty_word, ..NewContainer::default() };
        assert!(args(&image, &new).is_err(), "an empty word discards the command as well");
    }

    #[test]
    fn variables_are_merged_by_name() {
        let cases = [
            ("", "", DEFAULT_PATH.to_owned()),
            ("PATH=/a A=1", "A=2 B=3", "PATH=/a A=2 B=3".to_owned()),
            ("PATH=/a A=1", "PATH=/b", "PATH=/b A=1".to_owned()),
            ("PATH=/a A=1=2", "A", "PATH=/a".to_owned()),
            ("PATH=/a", "A= B=x=y", "PATH=/a A= B=x=y".to_owned()),
            ("PATH=/a AB=1", "A=2", "PATH=/a AB=1 A=2".to_owned()),
        ];
        for (image, own, expected) in cases {
            let got = env(&words(image), &words(own)).unwrap();
            assert_eq!(got, words(&expected), "{image:?} with {own:?}");
        }
        let error = env(&[], &words("=x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }

    #[test]
    fn empty_fields_keep_the_image() {
        let image = RunConfig {
            user: "app".into(),
            working_dir: "/srv".into(),
            stop_signal: "SIGQUIT".into(),
            cmd: words("run"),
            ..RunConfig::default()
        };
        let kept = merge(&image, &NewContainer::default()).unwrap();
        assert_eq!((kept.user.as_str(), kept.cwd.as_str()), ("app", "/srv"));
        assert_eq!(kept.stop_signal, "SIGQUIT");
        let spec = ContainerSpec {
            user: "0:0".into(),
            cwd: "/".into(),
            stop_signal: "9".into(),
            hostname: "h".into(),
            read_only: true,
            ..ContainerSpec::default()
        };
        let own = merge(&image, &NewContainer { spec, ..NewContainer::default() }).unwrap();
        assert_eq!((own.user.as_str(), own.cwd.as_str()), ("0:0", "/"));
        assert_eq!((own.stop_signal.as_str(), own.hostname.as_str()), ("9", "h"));
        assert!(own.read_only, "other fields are the client's");
    }
}
