//! The configuration file: its defaults, its documentation, and what it says about every mistake.

use std::path::Path;

use xmd::config::{Config, ConfigError, DEFAULT_FILE, KEY_NAMES, Problem};

fn parse(text: &str) -> Result<Config, ConfigError> {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Config::parse(&format!("{text}{end}"), Path::new("xmd.toml"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Wrong(problems)) => problems,
        other => panic!("{text}\nshould be refused, but is {other:?}"),
    }
}

/// The lines of the default file with the full name of the key each one sets.
fn key_lines() -> Vec<(usize, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for (number, line) in DEFAULT_FILE.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push((number, format!("{section}{name}")));
        }
    }
    keys
}

/// The default file with the value of one key replaced.
fn with(key: &str, value: &str) -> String {
    let (number, _) = key_lines().into_iter().find(|(_, name)| name == key).expect("a key of the file");
    let name = key.rsplit('.').next().expect("a name");
    let replace =
        |(at, line): (usize, &str)| if at == number { format!("{name} = {value}\n") } else { format!("{line}\n") };
    DEFAULT_FILE.lines().enumerate().map(replace).collect()
}

#[test]
fn the_printed_file_and_an_empty_one_are_exactly_the_defaults() {
    assert_eq!(parse(DEFAULT_FILE), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_file_has_every_key_once_and_each_has_a_comment_above_it() {
    let lines: Vec<&str> = DEFAULT_FILE.lines().collect();
    let keys = key_lines();
    let names: Vec<&str> = keys.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, KEY_NAMES);
    for (number, name) in &keys {
        assert!(lines[number - 1].starts_with("# "), "{name} has no comment");
    }
}

#[test]
fn each_key_takes_another_value() {
    for (key, value) in [
        ("data_dir", "\"/var/lib/xmd\""),
        ("public_address", "\"chat.example.org\""),
        ("router.listen", "\"[::1]:0\""),
        ("presence.identity", "\"C2P3\""),
        ("presence.listen", "\"127.0.0.2:9\""),
        ("presence.lanes", "64"),
        ("database.url", "\"postgres://xmd@db.example.org/\""),
        ("database.password_file", "\"\""),
        ("database.offline", "\"log\""),
        ("web.listen", "\"127.0.0.1:0\""),
        ("web.public_url", "\"https://chat.example.org/register/\""),
        ("web.behind_proxy", "true"),
        ("web.connections_max", "8"),
        ("mail.mode", "\"directory\""),
        ("mail.directory", "\"/tmp/mails\""),
        ("mail.from", "\"Chat <chat@example.org>\""),
        ("mail.relays", "[\"mail.example.org:587\", \"[::1]:25\"]"),
        ("mail.tls", "\"tls\""),
        ("mail.user", "\"chat\""),
        ("mail.password_file", "\"/etc/xmd/mail\""),
        ("registration.mode", "\"closed\""),
        ("registration.token_days", "30"),
        ("registration.reserved", "[]"),
        ("limits.offline_messages", "100_000"),
        ("limits.offline_bytes", "65536"),
        ("limits.offline_per_sender", "1"),
        ("limits.offline_days", "365"),
        ("limits.texts_at_once", "1_000_000"),
        ("limits.texts_per_second", "20"),
        ("log.level", "\"warning,xm_core=debug\""),
        ("log.format", "\"json\""),
    ] {
        let config = parse(&with(key, value)).unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
        // Their other values need further keys.
        let same_by_chance = ["mail.mode", "database.password_file", "database.offline"].contains(&key);
        assert_eq!(config == Config::default(), same_by_chance, "{key} = {value} changes nothing");
    }
    assert_eq!(parse(&with("web.public_url", "\"https://a.b/c/\"")).unwrap().web.public_url, "https://a.b/c");
}

/// For each key values that it must refuse.
const BAD: &[(&str, &[&str])] = &[
    ("data_dir", &["\"\"", "1", "\"a\\nb\""]),
    ("public_address", &["\"a:1\"", "\"http://a\"", "\"a b\"", "true", "\"a..b\""]),
    ("router.listen", &["\"127.0.0.1\"", "\"localhost:1\"", "7100", "\"127.0.0.1:65536\""]),
    ("presence.identity", &["\"C0P1\"", "\"c1p1\"", "1"]),
    ("presence.listen", &["\"\"", "[]"]),
    ("presence.lanes", &["-1", "65", "1.5", "\"2\"", "0x10", "99999999999999999999"]),
    ("database.url", &["\"localhost\"", "\"RouterDB\"", "1", "true"]),
    ("database.password_file", &["1", "\"a\\nb\""]),
    ("database.offline", &["\"memory\"", "true"]),
    ("web.listen", &["\"7180\"", "false"]),
    (
        "web.public_url",
        &["\"ftp://a\"", "\"a.b\"", "\"https://\"", "\"https://a/?b\"", "\"https://u@a\"", "\"http://a\\\"b\""],
    ),
    ("web.behind_proxy", &["1", "\"true\""]),
    ("web.connections_max", &["7", "65537"]),
    ("mail.mode", &["\"sendmail\"", "1"]),
    ("mail.directory", &["1"]),
    ("mail.from", &["\"nobody\"", "\"a@b\\r\\nBcc: c@d\"", "\"\""]),
    ("mail.relays", &["\"a:1\"", "[\"a\"]", "[\"a:0\"]", "[\"a:1\", \"b:1\", \"c:1\"]", "[1]", "[\"a b:1\"]"]),
    ("mail.tls", &["\"ssl\"", "true"]),
    ("mail.user", &["1", "\"a\\u0000\""]),
    ("mail.password_file", &["false"]),
    ("registration.mode", &["\"approval\"", "true"]),
    ("registration.token_days", &["0", "31"]),
    ("registration.reserved", &["\"admin\"", "[1]", "[\"a b\"]"]),
    ("limits.offline_messages", &["9", "100001"]),
    ("limits.offline_bytes", &["65535", "1073741825"]),
    ("limits.offline_per_sender", &["0", "1001"]),
    ("limits.offline_days", &["0", "366"]),
    ("limits.texts_at_once", &["0", "1000001"]),
    ("limits.texts_per_second", &["0", "1000001", "0.5"]),
    ("log.level", &["\"verbose\"", "\"info,hyper=debug\"", "3"]),
    ("log.format", &["\"xml\""]),
];

#[test]
fn a_bad_value_is_refused_with_its_key_its_value_its_line_and_the_way_out() {
    let tested: Vec<&str> = BAD.iter().map(|(key, _)| *key).collect();
    assert_eq!(tested, KEY_NAMES, "each key has bad values here");
    for (key, values) in BAD {
        let line = key_lines().into_iter().find(|(_, name)| name == key).expect("a key of the file").0 + 1;
        for value in *values {
            let found = problems(&with(key, value));
            let [problem] = &found[..] else { panic!("{key} = {value}: {found:?}") };
            assert_eq!(problem.key.as_deref(), Some(*key), "{value}");
            let text = problem.to_string();
            assert!(text.starts_with(&format!("xmd.toml:{line}: {key} = {value}: ")), "{text}");
            assert!(problem.why.len() > 15, "{text}");
        }
    }
}

#[test]
fn all_bad_keys_are_named_at_once() {
    let found = problems("colour = 1\n[presence]\nlanes = 1000\n[log]\nlevel = \"loud\"\n");
    let text = ConfigError::Wrong(found).to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("colour") && text.contains("presence.lanes") && text.contains("log.level"), "{text}");
}

#[test]
fn unknown_keys_are_named_with_what_was_probably_meant() {
    for (text, unknown, line, meant) in [
        ("listen = 1", "listen", 1, "router.listen"),
        ("\n[presence]\nlane = 1", "presence.lane", 3, "presence.lanes"),
        ("[web]\nconection_max = 1", "web.conection_max", 2, "web.connections_max"),
        ("[webb]\nlisten = 1", "webb", 1, "xmd config"),
        ("[web.listen.deep]\na = 1", "web.listen", 1, ""),
        ("router = 1", "router", 1, "[router] is a section"),
        ("[router.router]\nlisten = 1", "router.router", 1, ""),
    ] {
        let found = problems(text);
        let shown = ConfigError::Wrong(found).to_string();
        assert!(shown.starts_with(&format!("xmd.toml:{line}: ")), "{text}: {shown}");
        assert!(shown.contains(unknown) && shown.contains(meant), "{text}: {shown}");
    }
}

#[test]
fn a_half_written_or_damaged_file_is_refused_or_means_what_is_left_of_it() {
    for text in ["[web", "[web]\nlisten = ", "[web]\nlisten = \"127.0.0.1:1", "\u{0}", "a = 1\na = 2", "[web]\n[web]\n"]
    {
        let found = problems(text);
        assert!(found.iter().all(|problem| problem.line.is_some()), "{text:?}: {found:?}");
    }
    // Cut anywhere, the file is refused or every key that is left has its value: never a panic, never another value.
    let file = with("presence.lanes", "7");
    for end in (0..file.len()).filter(|end| file.is_char_boundary(*end)) {
        match Config::parse(&file[..end], Path::new("xmd.toml")) {
            Err(ConfigError::Wrong(found)) => assert!(found.iter().all(|problem| problem.line.is_some()), "{found:?}"),
            Err(error) => panic!("cut at {end}: {error}"),
            Ok(mut config) => {
                assert!([0, 7].contains(&config.presence.lanes), "cut at {end}: {config:?}");
                config.presence.lanes = 0;
                assert_eq!(config, Config::default(), "cut at {end}");
            }
        }
    }
}

#[test]
fn nothing_listens_beyond_this_machine_without_a_public_address() {
    for (key, needs) in
        [("router.listen", "public_address"), ("presence.listen", "public_address"), ("web.listen", "web.public_url")]
    {
        for open in ["\"0.0.0.0:7000\"", "\"192.0.2.7:7000\"", "\"[::]:7000\""] {
            let found = problems(&with(key, open));
            let [problem] = &found[..] else { panic!("{found:?}") };
            assert_eq!(problem.key.as_deref(), Some(key));
            assert!(problem.why.contains(needs), "{problem}");
        }
    }
    let open = "public_address = \"192.0.2.7\"\n[router]\nlisten = \"0.0.0.0:7100\"\n[presence]\nlisten = \"0.0.0.0:7101\"\n\
                [web]\nlisten = \"0.0.0.0:80\"\npublic_url = \"https://chat.example.org\"";
    assert!(parse(open).is_ok());
}

#[test]
fn mail_settings_that_cannot_work_or_would_leak_are_refused() {
    let smtp = |rest: &str| format!("[mail]\nmode = \"smtp\"\nfrom = \"chat@example.org\"\n{rest}");
    for (rest, key) in [
        ("", "mail.relays"),
        ("relays = [\"mail.example.org:25\"]\ntls = \"none\"", "mail.tls"),
        ("relays = [\"127.0.0.1:25\", \"192.0.2.1:25\"]\ntls = \"none\"", "mail.tls"),
        ("relays = [\"mail.example.org:587\"]\nuser = \"chat\"", "mail.user"),
        ("relays = [\"mail.example.org:587\"]\npassword_file = \"/x\"", "mail.user"),
    ] {
        let found = problems(&smtp(rest));
        assert_eq!(found[0].key.as_deref(), Some(key), "{rest}: {found:?}");
    }
    assert!(parse(&smtp("relays = [\"localhost:25\", \"[::1]:25\"]\ntls = \"none\"")).is_ok());
    let local = "[mail]\nmode = \"smtp\"\nrelays = [\"mail.example.org:587\"]";
    assert_eq!(problems(local)[0].key.as_deref(), Some("mail.from"));
}

#[test]
fn database_settings_that_cannot_work_are_refused_and_never_show_a_password() {
    let section = |rest: &str| format!("[database]\n{rest}");
    for (rest, key, needs) in [
        ("password_file = \"/x\"", "database.password_file", "set database.url"),
        ("offline = \"sql\"", "database.offline", "set database.url"),
        ("url = \"mysql://xmd:s3cret@db/\"", "database.url", "database.password_file"),
        ("url = \"postgres://xmd@db/?password=s3cret\"", "database.url", "database.password_file"),
        ("url = \"mysql:xmd:s3cret@db\"", "database.url", "mysql://"),
        ("url = \"mysql://xmd:s3c/ret@db\"", "database.url", "names no user"),
        ("url = \"postgres://xmd@db/RouterDB\"", "database.url", "must end with the server"),
        ("url = \"postgres://xmd@db/?sslmod=disable\"", "database.url", "sslmod"),
        ("url = \"sqlite:/x\"", "database.url", "postgres://"),
    ] {
        let found = problems(&section(rest));
        let [problem] = &found[..] else { panic!("{found:?}") };
        let text = problem.to_string();
        assert_eq!(problem.key.as_deref(), Some(key), "{text}");
        assert!(text.contains(needs) && !text.contains("s3c"), "{text}");
    }
    let config = parse(&section(
        "url = \"mysql://xmd@db.example.org/?ssl-ca=/x\"\npassword_file = \"/etc/xmd/db\"\noffline = \"sql\"",
    ));
    assert_eq!(config.unwrap().database.server.unwrap().to_string(), "mysql://xmd@db.example.org/");
}

#[test]
fn two_servers_on_one_port_are_noticed_before_the_system_does() {
    let found = problems(&with("presence.listen", "\"127.0.0.1:7100\""));
    assert_eq!(found[0].key.as_deref(), Some("presence.listen"));
}

#[test]
fn a_file_that_cannot_be_read_or_is_no_text_is_named() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let missing = temp.path().join("no.toml");
    let error = Config::read(&missing).expect_err("missing").to_string();
    assert!(error.contains("no.toml"), "{error}");
    let binary = temp.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).expect("written");
    assert!(Config::read(&binary).expect_err("no text").to_string().contains("binary.toml"));
    let huge = "#".repeat(2 * 1024 * 1024);
    assert!(problems(&huge)[0].why.contains("1048576 bytes"));
}

#[test]
fn a_mutated_file_is_refused_or_understood_and_never_opens_what_is_closed() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let pieces: [&[u8]; 12] = [
        b"\n",
        b"\"",
        b"[",
        b"]",
        b" = ",
        b"#",
        b"\xff",
        b"0.0.0.0",
        b"99999999999999999999",
        b"[web]\n",
        b"\"\"\"",
        b"\\u0000",
    ];
    let mut understood = 0;
    for seed in 0..4_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = DEFAULT_FILE.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.splice(at..at, pieces[rng.random_range(0..pieces.len())].iter().copied())),
                _ => drop(bytes.drain(at..(at + rng.random_range(0..40)).min(bytes.len()))),
            }
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match Config::parse(&text, Path::new("xmd.toml")) {
            Ok(config) => {
                understood += 1;
                let open =
                    [config.router.listen, config.presence.listen].iter().any(|listen| !listen.ip().is_loopback());
                assert!(!open || !config.public_address.is_empty(), "seed {seed}: {config:?}");
                assert!(
                    config.web.listen.ip().is_loopback() || !config.web.public_url.is_empty(),
                    "seed {seed}: {config:?}"
                );
            }
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.lines().count() >= 1 && text.chars().all(|c| c == '\n' || !c.is_control()),
                    "seed {seed}: {text:?}"
                );
            }
        }
    }
    // Most mutations hit comments: the test would be empty if all were refused.
    assert!((100..3_900).contains(&understood), "{understood}");
}
