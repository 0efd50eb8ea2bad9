//! What the daemon needs to start (nothing), what it refuses and how it says so, and how it stops.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::place::{PATIENCE, Place, Running, get, mode, output, text, udp_ports_of, xmd};

#[test]
fn it_starts_with_nothing_says_where_everything_is_and_keeps_it_to_itself() {
    let place = Place::new("");
    let running = place.start();
    assert!(running.told("Address for clients").starts_with("xm://127.0.0.1:"), "{}", running.welcome);
    assert!(running.welcome.contains("Only this machine can reach the server"), "{}", running.welcome);
    assert!(get(running.web(), "/").contains("Make an account"));
    assert!(get(running.web(), "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(mode(&place.data("")), 0o700);
    let mut files = 0;
    for directory in [place.data(""), place.data("keys")] {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            files += 1;
            assert_eq!(mode(&path) & 0o077, 0, "{} can be used by others", path.display());
        }
    }
    assert!(files > 6, "{files} files");
}

#[test]
fn the_manual_names_every_file_of_a_data_directory() {
    let manual = include_str!("../../../docs/OPERATING.md");
    let place = Place::new("");
    let _running = place.start();
    for (directory, prefix) in [(place.data(""), ""), (place.data("keys"), "keys/")] {
        for entry in directory.read_dir().unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // What SQLite puts beside a database is explained in one sentence.
            let name = name.trim_end_matches("-wal").trim_end_matches("-shm");
            assert!(manual.contains(&format!("`{prefix}{name}")), "{prefix}{name} is not in docs/OPERATING.md");
        }
    }
}

#[test]
fn the_configuration_in_the_manual_passes_the_check() {
    let manual = include_str!("../../../docs/OPERATING.md");
    let config = manual.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config =
        xmd::config::Config::parse(config, Path::new("OPERATING.md")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.mail.relays.len(), 2);
}

#[test]
fn sigterm_and_sigint_end_it_well_and_soon() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new("");
        let (status, took, log) = place.start().stop(signal);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(log.lines().all(|line| !line.contains("ERROR")), "{log}");
    }
}

/// The names of the threads of lanes, in order.
fn threads_of_lanes(running: &Running) -> Vec<String> {
    let threads = Path::new("/proc").join(running.child.id().to_string()).join("task").read_dir().unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("presence-")).collect();
    names.sort();
    names
}

#[test]
fn each_lane_has_a_thread_of_its_own_where_there_are_cores_for_it() {
    let cores = std::thread::available_parallelism().unwrap().get();
    for lanes in [1, 3] {
        let place = Place::new("");
        place.add_to("presence", &format!("lanes = {lanes}"));
        let running = place.start();
        let expected = if cores == 1 { 0 } else { lanes };
        let expected: Vec<_> = (0..expected).map(|lane| format!("presence-{lane}\n")).collect();
        assert_eq!(threads_of_lanes(&running), expected);
        let (status, _, log) = running.stop("-TERM");
        assert!(status.success(), "{log}");
    }
}

#[test]
fn on_a_single_core_everything_shares_a_thread() {
    // What this thread starts inherits its cores.
    let mine = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut first = CpuSet::new();
    first.set((0..CpuSet::count()).find(|cpu| mine.is_set(*cpu).unwrap()).unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &first).unwrap();
    let place = Place::new("");
    place.add_to("presence", "lanes = 3");
    let running = place.start();
    let demo = xmd(&["demo"]).output().unwrap();
    sched_setaffinity(Pid::from_raw(0), &mine).unwrap();
    assert!(threads_of_lanes(&running).is_empty());
    assert!(get(running.web(), "/").contains("Make an account"));
    let (status, _, log) = running.stop("-TERM");
    assert!(status.success(), "{log}");
    assert!(demo.status.success(), "registers, logs in, chats: {}", text(&demo.stderr));
}

#[test]
fn the_allocator_was_told_at_build_time_what_the_workspace_says() {
    let config = include_str!("../../../.cargo/config.toml");
    let told = config.lines().find_map(|line| line.strip_prefix("JEMALLOC_SYS_WITH_MALLOC_CONF = ")).unwrap();
    let output = xmd(&["--version"]).env("_RJEM_MALLOC_CONF", "stats_print:true").output().unwrap();
    let said = text(&output.stderr);
    let in_force = said.lines().find(|line| line.contains("config.malloc_conf")).unwrap_or(&said);
    assert!(in_force.contains(told.trim_matches('"')), "{in_force}");
}

#[test]
fn the_server_key_stays_the_same_over_restarts_also_after_a_kill() {
    let place = Place::new("");
    let key = |running: &Running| running.told("Address for clients").rsplit('/').next().unwrap().to_owned();
    let running = place.start();
    let first = key(&running);
    drop(running);
    let again = place.start();
    assert_eq!(key(&again), first);
    let (status, _, log) = again.stop("-TERM");
    assert!(status.success(), "{log}");
}

#[test]
fn a_second_one_on_the_same_directory_is_refused_and_told_about_the_first() {
    let place = Place::new("");
    let first = place.start();
    let (code, said) = place.refused();
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("process {}", first.child.id())) && said.contains("--data"), "{said}");
    assert!(get(first.web(), "/healthz").starts_with("HTTP/1.1 200"), "the first goes on");
}

#[test]
fn a_port_in_use_is_named_with_its_key_and_the_way_out() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    for (key, address) in [
        ("router.listen", udp.local_addr().unwrap()),
        ("presence.listen", udp.local_addr().unwrap()),
        ("web.listen", tcp.local_addr().unwrap()),
    ] {
        let place = Place::new("");
        let config = std::fs::read_to_string(place.config()).unwrap();
        let section = format!("[{}]\nlisten = ", key.split('.').next().unwrap());
        let config = config.replace(&format!("{section}\"127.0.0.1:0\""), &format!("{section}\"{address}\""));
        std::fs::write(place.config(), config).unwrap();
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("{key} = \"{address}\"")) && said.contains("choose another port"), "{said}");
        assert!(!place.data("RouterDB.db").exists(), "no database was touched");
    }
}

#[test]
fn two_of_them_with_several_lanes_do_not_share_a_port() {
    let first = Place::new("");
    let config = std::fs::read_to_string(first.config()).unwrap().replace("[presence]\n", "[presence]\nlanes = 4\n");
    std::fs::write(first.config(), &config).unwrap();
    let running = first.start();
    let _ = running.told("Address for clients");
    // Where the first one's Presence is, nobody is told but clients: the kernel knows.
    let begun = Instant::now();
    let port = loop {
        // The kernel leaves lines out of its table while other tests open and close sockets.
        if let Some((port, _)) = udp_ports_of(running.child.id()).into_iter().find(|(_, sockets)| *sockets == 4) {
            break port;
        }
        assert!(begun.elapsed() < PATIENCE, "no port with four lanes");
    };
    let second = Place::new("");
    let config = std::fs::read_to_string(second.config()).unwrap();
    let config = config.replace(
        "[presence]\nlisten = \"127.0.0.1:0\"",
        &format!("[presence]\nlanes = 4\nlisten = \"127.0.0.1:{port}\""),
    );
    std::fs::write(second.config(), config).unwrap();
    let (code, said) = second.refused();
    assert_eq!(code, Some(1));
    assert!(said.contains("presence.listen"), "{said}");
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_made() {
    let place = Place::new("[log]\nlevel = \"loud\"\ncolour = true\n");
    let (code, said) = place.refused();
    assert_eq!(code, Some(2));
    assert!(said.contains("log.level = \"loud\"") && said.contains("log.colour"), "{said}");
    assert!(!place.data("").exists());
    let missing = output(&["run", "--config", "/nonexistent/xmd.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nonexistent/xmd.toml"), "{}", text(&missing.stderr));
}

#[test]
fn a_damaged_data_directory_is_refused_by_name_and_left_as_it_is() {
    for (file, words) in [("keys/router.key", "router.key is damaged"), ("RouterDB.db", "RouterDB.db")] {
        let place = Place::new("");
        place.start().stop("-TERM");
        let path = place.data(file);
        std::fs::write(&path, b"half wri").unwrap();
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words) && said.contains("backup"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), b"half wri");
    }
    let place = Place::new("");
    place.start().stop("-TERM");
    std::fs::remove_file(place.data("keys/router.key")).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, Some(1));
    assert!(said.contains("router.key is missing"), "{said}");
    assert!(!place.data("keys/router.key").exists());
}

#[test]
fn modes_that_let_others_in_are_tightened_and_a_loose_key_is_refused() {
    let place = Place::new("");
    place.start().stop("-TERM");
    std::fs::set_permissions(place.data(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(place.data("RouterDB.db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, _, log) = place.start().stop("-TERM");
    assert_eq!((mode(&place.data("")), mode(&place.data("RouterDB.db"))), (0o700, 0o600));
    assert!(log.contains("WARNING"), "{log}");
    std::fs::set_permissions(place.data("keys/router.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, Some(1));
    assert!(said.contains("router.key can be read by others"), "{said}");
}

#[test]
fn it_listens_on_loopback_alone() {
    let place = Place::new("");
    let running = place.start();
    let pid = running.child.id();
    for table in ["udp", "tcp", "udp6", "tcp6"] {
        let Ok(sockets) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else { continue };
        let own: Vec<u16> = udp_ports_of(pid).into_keys().chain([running.web().port()]).collect();
        for line in sockets.lines().skip(1) {
            let (address, port) = line.split_whitespace().nth(1).unwrap().rsplit_once(':').unwrap();
            if own.contains(&u16::from_str_radix(port, 16).unwrap()) {
                assert_eq!(address, "0100007F", "{table}: {line}");
            }
        }
    }
}

#[test]
fn the_log_is_one_line_per_event_in_both_formats_and_shows_no_key() {
    for format in ["text", "json"] {
        let place = Place::new(&format!("[log]\nlevel = \"debug\"\nformat = \"{format}\"\n"));
        let running = place.start();
        let token = "A".repeat(43);
        let _ = get(running.web(), &format!("/activate?token={token}"));
        let (_, _, log) = running.stop("-TERM");
        assert!(log.lines().count() >= 4, "{log}");
        let fine = |line: &str| {
            if format == "json" { line.starts_with('{') && line.ends_with('}') } else { line.starts_with("20") }
        };
        assert!(log.lines().all(fine), "{log}");
        assert!(!log.contains(&token), "a token is in the log");
        for key in ["router.key", "presence.key", "register.key"] {
            let file = std::fs::read_to_string(place.data("keys").join(key)).unwrap();
            let secret = file.split(' ').nth(1).unwrap();
            assert!(!log.contains(secret), "{key} is in the log");
        }
    }
}

#[test]
fn config_prints_a_file_that_passes_its_own_check() {
    let printed = output(&["config"]);
    assert!(printed.status.success());
    assert_eq!(text(&printed.stdout), xmd::config::DEFAULT_FILE);
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("xmd.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let file = file.to_str().unwrap();
    assert!(output(&["config", "--check", file]).status.success());
    std::fs::write(file, "[web]\nport = 1\n").unwrap();
    let checked = output(&["config", "--check", file]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stderr).contains("web.port"), "{}", text(&checked.stderr));
}

#[test]
fn help_teaches_by_example_and_a_wrong_option_is_named() {
    let help = text(&output(&["--help"]).stdout);
    for words in ["xmd demo", "xmd config > xmd.toml", "--data", "public_address", "docs/OPERATING.md"] {
        assert!(help.contains(words), "no {words:?} in {help}");
    }
    for (command, words) in [
        (&["backup"][..], "one state of the whole"),
        (&["restore"], "xmd restore --from"),
        (&["db", "status"], "Changes nothing"),
        (&["db", "migrate"], "docs/OPERATING.md"),
        (&["store", "check"], "--data may also name a backup"),
        (&["store", "repair"], "quarantine/"),
    ] {
        let help = text(&output(&[command, &["--help"]].concat()).stdout);
        // Lines are broken where the terminal ends.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(words), "no {words:?} in the help of {command:?}: {help}");
    }
    assert!(text(&output(&["--version"]).stdout).starts_with("xmd "));
    let wrong = output(&["--dta", "x"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--data"), "{}", text(&wrong.stderr));
}

#[test]
fn the_demonstration_runs_to_its_end_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let played = xmd(&["demo"]).env("TMPDIR", temp.path()).output().unwrap();
    let told = text(&played.stdout);
    assert_eq!(played.status.code(), Some(0), "{told}\n{}", text(&played.stderr));
    for words in [
        "the account is ready",
        "is logged in",
        "bob said yes",
        "tick: delivered",
        "tick: stored",
        "reads it, first thing",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    assert_eq!(temp.path().read_dir().unwrap().count(), 0, "something is left behind");
}

#[test]
fn the_demonstration_stays_when_asked_and_leaves_when_told() {
    let temp = tempfile::tempdir().unwrap();
    let running = Running::wait_for(xmd(&["demo", "--stay"]).env("TMPDIR", temp.path()).spawn().unwrap());
    assert!(get(running.web(), "/").contains("Make an account"));
    let (status, _, said) = running.stop("-TERM");
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(temp.path().read_dir().unwrap().count(), 0, "something is left behind");
}

#[test]
fn a_demonstration_that_cannot_run_says_why() {
    let played = xmd(&["demo"]).env("TMPDIR", "/nonexistent").output().unwrap();
    assert_eq!(played.status.code(), Some(1));
    assert!(text(&played.stderr).contains("no temporary directory"), "{}", text(&played.stderr));
}
