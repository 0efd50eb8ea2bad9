//! Faults of disks, where the machine allows them: injected into a process by `strace`, a small file system, one whose power
//! can be cut. Where it does not, the test says so: see `need.rs`.

use std::ffi::OsString;
use std::process::Command;

use crate::loop_disk::Disk;
use crate::need;

/// A disk whose power can be cut, where the machine allows one.
pub(crate) fn powered(test: &str) -> Option<Disk> {
    let missing = need::not_root().or_else(|| need::missing_program(&["mkfs.ext4", "mount", "umount", "perl"]));
    let disk = missing.map_or_else(Disk::ext4, Err);
    need::need(test, "power_loss", disk.as_ref().err().cloned()).then(|| disk.expect("checked"))
}

/// The victim under `strace` with this injection, where that works.
pub(crate) fn injected(test: &str, injection: &str) -> Option<Vec<OsString>> {
    let syscall = injection.split(':').next().unwrap_or_default();
    let (trace, inject) = (format!("trace={syscall}"), format!("inject={injection}"));
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(OsString::from);
    let works = || {
        let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output();
        let failed = |why: String| Some(format!("strace cannot inject {injection}: {why}"));
        match tried {
            Ok(output) if output.status.code().is_some_and(|code| code < 2) => None,
            Ok(output) => failed(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => failed(error.to_string()),
        }
    };
    let missing = need::missing_program(&["strace"]).or_else(works);
    need::need(test, "strace", missing).then(|| words.to_vec())
}

/// A small file system in memory, where the machine allows one.
pub(crate) fn tmpfs(test: &str, size: &str) -> Option<Disk> {
    let missing = need::not_root().or_else(|| need::missing_program(&["mount", "umount"]));
    let disk = missing.map_or_else(|| Disk::tmpfs(size), Err);
    need::need(test, "root", disk.as_ref().err().cloned()).then(|| disk.expect("checked"))
}
