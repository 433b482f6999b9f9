//! `layerctl events`: what the daemon does, as it does it.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use layerd_api::{Event, EventLine, EventQuery};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::context::Session;
use crate::exit::{self, usage};
use crate::names::printable;
use crate::template::Template;

/// Attributes that a template may name whether an event has them or not.
const COMMON: [(&str, &str); 8] = [
    ("Name", "name"),
    ("Names", "names"),
    ("Driver", "driver"),
    ("Dialect", "dialect"),
    ("Size", "size"),
    ("Duration", "duration"),
    ("Parent", "parent"),
    ("Error", "error"),
];

/// Show what the daemon does, as it does it
///
/// Ends with the daemon, at the time of --until, or with control-C. Starts no daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Begin with what was done since then, as far as the daemon remembers (the last 1,024 events): RFC
    /// 3339, seconds since 1970, or how long ago (10m, 1h30m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// KEY=VALUE,...: type, action, id (its beginning), or an attribute; values of one key are
    /// alternatives, keys must all fit
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// A template: {{.Time}} {{.Type}} {{.Action}} {{.ID}} {{.Seq}} {{.Name}} {{.Names}} {{.Driver}}
    /// {{.Dialect}} {{.Size}} {{.Duration}} {{.Parent}} {{.Error}} {{json .Attributes}}, {{json .}}
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    if template.as_ref().is_some_and(Template::is_table) {
        return Err(usage("a stream has no table: leave `table` away"));
    }
    let query = query(args, Timestamp::now())?;
    let client = session.client_of_daemon();
    let events = client.events(&query)?;
    end_with_reader_or_signal()?;
    let mut out = session.out();
    for line in events {
        match (line?, &template) {
            (line, None) if session.json => {
                // The error is kept an io error, so that a broken pipe is known as one.
                serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            (EventLine::Event(event), Some(template)) => {
                writeln!(out, "{}", template.render(&fields(&event))?)?;
            }
            (EventLine::Event(event), None) => writeln!(out, "{}", text(&event))?,
            (EventLine::Lost(lost), _) => {
                exit::tell(&format!("{} events are missing: they came too fast", lost.count));
            }
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn query(args: &Args, now: Timestamp) -> anyhow::Result<EventQuery> {
    let time = |text: &Option<String>| text.as_deref().map(|text| time(text, now)).transpose();
    let filter = Some(args.filter.join(",")).filter(|filter| !filter.is_empty());
    Ok(EventQuery { since: time(&args.since)?, until: time(&args.until)?, filter })
}

/// A time as the daemon reads it, seconds since 1970.
fn time(text: &str, now: Timestamp) -> anyhow::Result<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(text.to_owned());
    }
    let ago = |text: &str| now.checked_sub(text.parse::<SignedDuration>().ok()?).ok();
    let time = text.parse::<Timestamp>().ok().or_else(|| ago(text));
    let time = time.filter(|time| *time >= Timestamp::UNIX_EPOCH).ok_or_else(|| {
        usage(format!(
            "{text:?} is no time: neither like 2026-01-31T12:00:00Z, nor seconds since 1970, nor how \
             long ago, like 10m"
        ))
    })?;
    Ok(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
}

/// An event on a line, for a person.
fn text(event: &Event) -> String {
    let mut line = format!("{} {} {}", event.time, event.kind, event.action);
    if !event.id.is_empty() {
        line.push(' ');
        line.push_str(&printable(&event.id));
    }
    if !event.attributes.is_empty() {
        let attributes = event.attributes.iter();
        let attributes: Vec<_> =
            attributes.map(|(name, value)| format!("{name}={}", printable(value))).collect();
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

fn fields(event: &Event) -> Value {
    let mut fields = json!({
        "Time": event.time,
        "Type": event.kind,
        "Action": event.action,
        "ID": event.id,
        "Seq": event.seq,
        "Attributes": event.attributes,
    });
    for (field, attribute) in COMMON {
        fields[field] = json!(event.attributes.get(attribute).map_or("", String::as_str));
    }
    fields
}

/// Has a thread end the process when it is told to, or when nobody reads its output any more. No line is
/// cut off by it: each is written whole.
fn end_with_reader_or_signal() -> anyhow::Result<()> {
    let (told, teller) = UnixStream::pair().context("make a pair of sockets")?;
    for signal in [SIGINT, SIGTERM] {
        let teller = teller.try_clone().context("duplicate a socket")?;
        signal_hook::low_level::pipe::register(signal, teller).context("catch a signal")?;
    }
    let wait = move || {
        let stdout = io::stdout();
        let stdout = stdout.as_fd();
        // Without asked events poll(2) reports errors and hang-ups alone.
        let mut ends =
            [PollFd::new(&told, PollFlags::IN), PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut ends, None).is_err() {}
        // The end of the pair that signals write into is kept until here.
        drop(teller);
        std::process::exit(0);
    };
    std::thread::Builder::new().name("end".to_owned()).spawn(wait).context("start a thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event() -> Event {
        let attributes = [("driver", "vfs"), ("size", "12")];
        Event {
            seq: 7,
            time: "2026-01-31T12:00:00.000000001Z".to_owned(),
            kind: "layer".to_owned(),
            action: "commit".to_owned(),
            id: "a\u{1b}b".to_owned(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn times_are_points_or_how_long_ago() {
        let now = "2026-01-31T12:00:00.5Z".parse().expect("a time");
        for (text, expected) in [
            ("1700000000", Some("1700000000")),
            ("1700000000.25", Some("1700000000.25")),
            ("2026-01-31T11:59:59.000000001Z", Some("1769860799.000000001")),
            ("2026-01-31T13:00:00+01:00", Some("1769860800.000000000")),
            ("10m", Some("1769860200.500000000")),
            ("1h30m", Some("1769855400.500000000")),
            ("yesterday", None),
            ("1960-01-01T00:00:00Z", None),
            ("", None),
        ] {
            let found = time(text, now).ok();
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_event_is_a_line() {
        let mut event = event();
        let expected =
            "2026-01-31T12:00:00.000000001Z layer commit a\\u{1b}b (driver=vfs, size=12)";
        assert_eq!(text(&event), expected, "control characters are shown, not sent");
        let template = Template::parse("{{.Type}} {{.Driver}}:{{.Error}}").expect("a template");
        assert_eq!(
            template.render(&fields(&event)).expect("a line"),
            "layer vfs:",
            "what is absent"
        );
        event.id.clear();
        event.attributes = BTreeMap::new();
        assert_eq!(
            text(&event),
            "2026-01-31T12:00:00.000000001Z layer commit",
            "nothing is left over"
        );
    }

    #[test]
    fn filters_add_up() {
        let args = Args {
            since: None,
            until: Some("5".to_owned()),
            filter: vec!["type=layer".to_owned(), "action=remove".to_owned()],
            format: None,
        };
        let query = query(&args, Timestamp::UNIX_EPOCH).expect("a query");
        assert_eq!(query.filter.as_deref(), Some("type=layer,action=remove"));
        assert_eq!((query.since, query.until.as_deref()), (None, Some("5")));
    }
}
