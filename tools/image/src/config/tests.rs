use super::*;
use cow::ErrorKind;

const DIFF: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(text: &str) -> Result<Config> {
    let text = text.replace("DIFF", DIFF).replace('\'', "\"");
    Config::parse(text.into_bytes(), Place::inside("a.tar", "config.json"))
}

#[test]
fn a_config_of_docker_is_understood() {
    let config = parse(
        "{'architecture':'arm64','os':'linux','variant':'v8','created':'2026-01-02T03:04:05Z',
          'author':'A','docker_version':'20.10','container_config':{'Cmd':null},
          'config':{'User':'app','Env':['A=b'],'Entrypoint':['/e'],'Cmd':['c'],'WorkingDir':'/w',
            'Labels':{'k':'v'},'ExposedPorts':{'80/tcp':{}},'Volumes':{'/data':{}},
            'StopSignal':'SIGINT','Healthcheck':{'Test':['NONE']},'OnBuild':null},
          'rootfs':{'type':'layers','diff_ids':['DIFF']},
          'history':[{'created_by':'RUN x'},{'created_by':'CMD','empty_layer':true}]}",
    )
    .unwrap();
    let image = config.image();
    assert_eq!(image.platform().to_string(), "linux/arm64");
    assert_eq!(image.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(
        (image.author.as_str(), image.other["docker_version"].as_str()),
        ("A", Some("20.10"))
    );
    let run = &image.config;
    assert_eq!((run.user.as_str(), run.working_dir.as_str()), ("app", "/w"));
    assert_eq!(
        (run.entrypoint.as_slice(), run.cmd.as_slice()),
        (&["/e".into()][..], &["c".into()][..])
    );
    assert_eq!(run.env, ["A=b"]);
    assert_eq!(run.labels["k"], "v");
    assert!(run.exposed_ports.contains_key("80/tcp") && run.volumes.contains_key("/data"));
    assert_eq!(run.stop_signal, "SIGINT");
    assert!(run.other.contains_key("Healthcheck"), "members without a field are kept");
    assert_eq!(image.rootfs.diff_ids, [DIFF.parse().unwrap()]);
    assert!(!image.history[0].empty_layer && image.history[1].empty_layer);
    assert_eq!(config.digest(), Digest::of(config.raw()), "the id is the digest of the bytes");
}

#[test]
fn nulls_and_single_strings_of_old_configs_are_read() {
    let config = parse(
        "{'author':null,'config':{'Env':null,'Cmd':'sh','Entrypoint':null,'Labels':null,
          'Volumes':null,'ExposedPorts':null,'User':null},'history':null,
          'rootfs':{'type':'layers','diff_ids':null}}",
    )
    .unwrap();
    let image = config.image();
    assert_eq!(image.config.cmd, ["sh"]);
    assert_eq!(image.config, RunConfig { cmd: vec!["sh".into()], ..RunConfig::default() });
    assert!(image.history.is_empty() && image.rootfs.diff_ids.is_empty());
    assert_eq!(image.platform().os(), "linux");
    let without = parse("{'config':null,'rootfs':{'type':'layers','diff_ids':[]}}").unwrap();
    assert_eq!(without.image().config, RunConfig::default());
}

#[test]
fn other_documents_are_refused() {
    let many = format!(
        "{{'rootfs':{{'type':'layers','diff_ids':[{}]}}}}",
        vec!["'DIFF'"; MAX_LAYERS + 1].join(",")
    );
    let deep = format!("{{'a':{}", "[".repeat(10_000));
    let cases = [
        ("", ErrorKind::Corrupt, "EOF"),
        ("null", ErrorKind::Corrupt, "null"),
        ("{}", ErrorKind::Corrupt, "rootfs"),
        ("{'rootfs':{'diff_ids':[]}}", ErrorKind::Corrupt, "type"),
        ("{'rootfs':{'type':'other','diff_ids':[]}}", ErrorKind::Corrupt, "layers"),
        ("{'rootfs':{'type':'layers','diff_ids':['x']}}", ErrorKind::Corrupt, "digest"),
        ("{'rootfs':{'type':'layers','diff_ids':[1]}}", ErrorKind::Corrupt, "integer"),
        ("{'config':[],'rootfs':{'type':'layers','diff_ids':[]}}", ErrorKind::Corrupt, ""),
        (&many, ErrorKind::Unsupported, "1,024"),
        (&deep, ErrorKind::Corrupt, "recursion"),
    ];
    for (text, kind, reason) in cases {
        let shown = &text[..text.len().min(60)];
        let error = parse(text).unwrap_err();
        assert!(error.to_string().contains(reason), "{shown}: {error} lacks {reason:?}");
        assert!(error.to_string().contains("a.tar: config.json"), "{shown}: {error}");
        assert_eq!(error.kind(), kind, "{shown}: {error}");
    }
}

#[test]
fn a_changed_config_loses_nothing() {
    let text = "{'architecture':'amd64','os':'linux','config':{'Cmd':['sh'],'Shell':['/bin/sh']},
        'rootfs':{'type':'layers','diff_ids':['DIFF']},'history':[{'comment':'c','x':1}],'y':[2]}";
    let before = parse(text).unwrap();
    let after = Config::build(before.image().clone()).unwrap();
    let [before, after] =
        [&before, &after].map(|config| serde_json::from_slice::<Value>(config.raw()).unwrap());
    assert_eq!(before, after);
}

#[test]
fn the_config_of_a_rootfs_depends_on_its_layers_alone() {
    let diff: DiffId = DIFF.parse().unwrap();
    let config = Config::for_rootfs(&[diff]).unwrap();
    assert_eq!(config, Config::for_rootfs(&[diff]).unwrap(), "twice the same");
    assert_ne!(config.digest(), Config::for_rootfs(&[diff, diff]).unwrap().digest());
    let again = Config::parse(config.raw().to_vec(), Place::file("x")).unwrap();
    assert_eq!(again, config, "what is written reads the same");
    assert_eq!(config.image().platform(), Platform::host());
    assert_eq!(config.image().created, None, "a date would change the id");
}
