//! A file system of one's own: ext4 on a file, whose power can be cut, and a small one in memory. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the ext4 disk.
const SIZE: u64 = 64 * 1024 * 1024;

/// ext4's ioctl that stops a file system without writing anything: no data, and nothing of its journal (flag 2). What was
/// flushed before is on the disk; everything else is gone with the next mount.
const CUT: &str = r#"
    open(my $directory, "<", $ARGV[0]) or die "open: $!";
    my $no_log_flush = pack("L", 2);
    ioctl($directory, 0x8004587d, $no_log_flush) or die "ioctl: $!";
"#;

/// Something mounted in a temporary directory; gone when this is.
pub(crate) struct Disk {
    _directory: tempfile::TempDir,
    /// The file with the file system; none if it is in memory.
    image: Option<PathBuf>,
    mount_point: PathBuf,
    is_mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

impl Disk {
    /// ext4 on a file.
    pub(crate) fn ext4() -> Result<Self, String> {
        let mut disk = Self::unmounted()?;
        let image = disk.mount_point.with_file_name("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(SIZE).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", text(&image)])?;
        disk.image = Some(image);
        disk.mount()?;
        Ok(disk)
    }

    /// In memory, with this much room: `8m`.
    pub(crate) fn tmpfs(size: &str) -> Result<Self, String> {
        let mut disk = Self::unmounted()?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none", text(&disk.mount_point)])?;
        disk.is_mounted = true;
        Ok(disk)
    }

    fn unmounted() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount_point = directory.path().join("mount");
        std::fs::create_dir(&mount_point).map_err(|error| error.to_string())?;
        Ok(Self { _directory: directory, image: None, mount_point, is_mounted: false })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    pub(crate) fn mount(&mut self) -> Result<(), String> {
        let image = self.image.as_deref().ok_or("it is in memory")?;
        run("mount", &["-o", "loop", text(image), text(&self.mount_point)])?;
        self.is_mounted = true;
        Ok(())
    }

    pub(crate) fn remount(&self, options: &str) -> Result<(), String> {
        run("mount", &["-o", &format!("remount,{options}"), text(&self.mount_point)])
    }

    /// From now on nothing gets to the disk, and calls fail.
    pub(crate) fn cut_power(&self) -> Result<(), String> {
        run("perl", &["-e", CUT, text(&self.mount_point)])
    }

    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[text(&self.mount_point)])?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: a test that failed may have left somebody in it.
            let _ = run("umount", &["-l", text(&self.mount_point)]);
        }
    }
}
