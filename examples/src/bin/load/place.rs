//! The directory that is measured on: what `load seed` writes down for `load run`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xmmep::client::DerivedKey;
use xmmep::name::UserName;
use xmmep::secret::{KdfParams, LoginKey, Salt};
use xmmep::types::UserId;

use crate::Failure;

/// How many users at the end have big rosters: enough that one who logged out can rest while the others log in.
pub(crate) const BIG: u32 = 100;
/// How many buddies each of them has.
pub(crate) const BIG_BUDDIES: u32 = 200;

/// Who is in the directory. User `n` has the name `u`*n* and is a buddy of the `buddies / 2` users before and after. The last
/// `big` users have [`BIG_BUDDIES`] buddies, the further ones being those who stand [just before](Self::known_by_big) them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Population {
    pub(crate) users: u32,
    pub(crate) buddies: u32,
    /// 0 in a directory of a `load` that did not have them yet.
    #[serde(default)]
    pub(crate) big: u32,
    /// The id of user 0; the others follow.
    pub(crate) first_id: u64,
    /// The login key all of them share, drawn for this directory.
    key: [u8; 32],
}

impl Population {
    pub(crate) fn new(users: u32, buddies: u32) -> Self {
        Self { users, buddies, big: BIG, first_id: 0, key: rand::random() }
    }

    /// Those with a big roster.
    pub(crate) fn big(&self) -> Range<u32> {
        self.users - self.big..self.users
    }

    /// Whom all of those know beside their neighbours. None of them is a neighbour: nobody is a buddy twice.
    pub(crate) fn known_by_big(&self) -> Range<u32> {
        let end = self.users - self.big - self.buddies / 2;
        end - (BIG_BUDDIES - self.buddies)..end
    }

    pub(crate) fn name(&self, number: u32) -> UserName {
        UserName::new(&format!("u{number:07}")).expect("letters and digits make a name")
    }

    pub(crate) fn id(&self, number: u32) -> UserId {
        UserId(self.first_id + u64::from(number))
    }

    pub(crate) fn key(&self) -> DerivedKey {
        DerivedKey { key: LoginKey::from_bytes(self.key), salt: Salt([9; 16]), params: KdfParams::RECOMMENDED }
    }
}

/// Where everything in the directory is.
pub(crate) struct Place {
    directory: PathBuf,
}

impl Place {
    pub(crate) fn at(directory: &Path) -> Result<Self, Failure> {
        Ok(Self { directory: std::path::absolute(directory)? })
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn population_file(&self) -> PathBuf {
        self.directory.join("population.json")
    }

    /// Makes the directory, which must not hold anything yet.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.directory)?;
        if std::fs::read_dir(&self.directory)?.next().is_some() {
            let directory = self.directory.display();
            return Err(format!("{directory} is not empty; name a directory that is, or does not exist").into());
        }
        Ok(())
    }

    /// Notes who is there, as the last step of seeding.
    pub(crate) fn finish(&self, population: &Population) -> Result<(), Failure> {
        Ok(std::fs::write(self.population_file(), serde_json::to_vec(population)?)?)
    }

    pub(crate) fn population(&self) -> Result<Population, Failure> {
        let file = self.population_file();
        let text = std::fs::read(&file).map_err(|error| {
            format!(
                "{}: {error}; make the directory with `load seed --dir {}`",
                file.display(),
                self.directory.display()
            )
        })?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Removes the texts that an earlier run left waiting: they are not to be measured.
    pub(crate) fn let_nothing_wait(&self) -> Result<(), Failure> {
        for file in std::fs::read_dir(self.data().join("offline-C1P1"))? {
            std::fs::remove_file(file?.path())?;
        }
        Ok(())
    }

    /// Writes the server's configuration: free ports, limits of single users raised, the rest as it is by default.
    pub(crate) fn configure(&self, data: &Path, lanes: u32) -> Result<PathBuf, Failure> {
        let file = self.directory.join("xmd.toml");
        let text = format!(
            "data_dir = {data:?}\n\
             [router]\nlisten = \"127.0.0.1:0\"\n\
             [presence]\nlisten = \"127.0.0.1:0\"\nlanes = {lanes}\n\
             [web]\nlisten = \"127.0.0.1:0\"\n\
             [limits]\ntexts_at_once = 1_000_000\ntexts_per_second = 1_000_000\n\
             offline_messages = 100_000\noffline_per_sender = 100_000\noffline_bytes = 1_073_741_824\n\
             [log]\nlevel = \"warning\"\n"
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }
}
